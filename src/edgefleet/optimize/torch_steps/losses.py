"""In the child: the loss that the publisher's training function calls."""

# pyright: reportMissingImports=false

from typing import Any

from edgefleet.base.errors import PublisherError


class OwnLoss:
    """The publisher's own loss, unchanged. Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs: Any, outputs: Any, own: Any) -> Any:
        """Return what is to be minimised for a batch."""
        del inputs, outputs
        self.calls += 1
        return own


class TeacherLoss(OwnLoss):
    """``hard_share`` of the own loss, and the rest of the distance to the teacher's answers.

    The teacher sees the same inputs as the student, augmentation included. Class scores are
    compared by the Kullback-Leibler divergence of both softened by ``temperature``, times its
    square (Hinton, Vinyals and Dean 2015); a single value by the squared error.
    """

    def __init__(self, teacher: Any, temperature: float, hard_share: float) -> None:
        super().__init__()
        self._teacher = teacher.eval()
        self._temperature = temperature
        self._hard_share = hard_share

    def __call__(self, inputs: Any, outputs: Any, own: Any) -> Any:
        """Return what is to be minimised for a batch."""
        import torch  # noqa: PLC0415

        self.calls += 1
        if self._hard_share == 1:
            return own
        with torch.no_grad():
            wanted = self._teacher(inputs)
        if not isinstance(outputs, torch.Tensor) or not isinstance(wanted, torch.Tensor):
            raise PublisherError("step_failed", "Distillation needs models with one output.")
        if outputs.shape != wanted.shape:
            raise PublisherError(
                "step_failed",
                f"The student answers {tuple(outputs.shape)}, the teacher {tuple(wanted.shape)}.",
            )
        soft = distance(outputs, wanted, self._temperature)
        return self._hard_share * own + (1 - self._hard_share) * soft


def distance(outputs: Any, wanted: Any, temperature: float) -> Any:
    """Of the outputs of a student from those of its teacher: a scalar tensor, 0 if equal."""
    from torch.nn import functional  # noqa: PLC0415

    if outputs.ndim < 2 or outputs.shape[1] == 1:
        return functional.mse_loss(outputs, wanted)
    made = functional.log_softmax(_logits(outputs) / temperature, dim=1)
    true = functional.log_softmax(_logits(wanted) / temperature, dim=1)
    cases = outputs.numel() // outputs.shape[1]
    total = functional.kl_div(made, true, reduction="sum", log_target=True)
    return total / cases * temperature**2


def _logits(scores: Any) -> Any:
    """Scores before the softmax. Probabilities become their logarithms."""
    values = scores.detach()
    sums = values.sum(dim=1)
    if bool((values >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        return scores.clamp_min(1e-8).log()
    return scores
