"""Exports a publisher's PyTorch model, and trains the smaller models that come from it."""

# pyright: reportMissingImports=false

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.recipe import Distil, Prune, Step
from edgefleet.optimize.torch_steps.child import TIME_LIMIT_S, run_job
from edgefleet.optimize.torch_steps.job import Done, Job
from edgefleet.optimize.torch_steps.onnx_file import WEIGHTS_KEY
from edgefleet.optimize.torch_steps.reference import source_of
from edgefleet.optimize.torch_steps.torch_file import torch_file

WIDTHS: Final = (0.5, 0.35, 0.25, 0.15)
"""Of the students that a search tries: shares of the channels of the source model."""
_AGREE: Final = 1e-3  # largest difference of an output, as a share of its range
_BATCHES: Final = (1, 3)  # at which the exported file is checked


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A PyTorch model: a function (``reference``), or a TorchScript or ExportedProgram file.

    ``example`` has an array for each input, by name, in the order of the model's arguments, with
    at least two cases. ``python`` runs it; it must have PyTorch.
    """

    model: str
    example: Arrays
    python: Path = field(default_factory=lambda: Path(sys.executable))
    time_limit_s: float = TIME_LIMIT_S
    on_line: Callable[[str], None] | None = None


def export_model(source: TorchModel, made: Path) -> Done:
    """Write the model as the ONNX file ``made``, with a batch of any size.

    The file is compared with the model on the example. Raises PublisherError
    ``model_is_pickle``, ``not_a_model``, ``model_unsupported`` with the words of the exporter, or
    ``step_failed``; DeviceError ``runtime_missing``.
    """
    if ":" not in source.model:
        torch_file(Path(source.model))
    done = _run(source, Job(model=source.model, example="", made=str(made)))
    check_batches(made, source.example)
    return done


@dataclass(frozen=True, slots=True)
class TorchTrainer:
    """A ``source_model.Trainer``: prunes and distils with the publisher's training function.

    ``train`` is a reference, see the package. Results differ with ``seed`` only where the
    publisher's function honours it.
    """

    source: TorchModel
    train_function: str = ""
    seed: int = 0

    @property
    def version(self) -> str:
        """Part of the key of the cache: the functions, their source files, and the seed.

        Files that these import and the training data are not in it.
        """
        digest = sha256(f"{self.seed}\n".encode())
        for reference in (self.source.model, self.train_function):
            digest.update(f"{reference}\n".encode())
            digest.update(source_of(reference))
        return digest.hexdigest()

    def train(self, step: Step, model: Path, made: Path) -> Done:
        """Make the trained ONNX file ``made``. ``model`` must be an export of the source.

        Raises PublisherError ``step_failed``; DeviceError ``runtime_missing``.
        """
        if not isinstance(step, Prune | Distil):
            raise _failed(f"The step {step.__struct_config__.tag} trains nothing.")
        if ":" not in self.source.model:
            raise _failed(
                "A TorchScript or ExportedProgram file cannot be trained.",
                hint="Name a function that returns the model, as package.module:function.",
            )
        if not self.train_function and step.epochs:
            raise PublisherError(
                "training_missing",
                f"The model is to be trained for {step.epochs} epochs, and there is no training "
                "function.",
                field="trainer",
            )
        job = Job(
            model=self.source.model, example="", made=str(made), step=step,
            train=self.train_function, seed=self.seed,
        )  # fmt: skip
        done = _run(self.source, job)
        _check_source(model, done)
        check_batches(made, self.source.example)
        return done


def students(epochs: int = 10) -> tuple[Distil, ...]:
    """Steps to try when the student is searched: the source with ever fewer channels."""
    return tuple(Distil(student=f"width:{width}", epochs=epochs) for width in WIDTHS)


def check_batches(made: Path, example: Arrays) -> None:
    """Raises PublisherError ``model_unsupported`` if the file cannot answer batches of any size.

    A case must get the same answer alone and among others.
    """
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    answers = list[list[np.ndarray]]()
    for count in _BATCHES:
        rows = {name: array[np.arange(count) % len(array)] for name, array in example.items()}
        try:
            answers.append([np.asarray(one) for one in session.run(None, rows)])
        except Exception as error:
            raise PublisherError(
                "model_unsupported",
                f"The exported model fails with a batch of {count}: {error}",
                hint="Write the model's forward without the number of cases as a constant.",
            ) from error
    for alone, among in zip(*answers, strict=True):
        span = float(np.ptp(among)) or 1.0
        worst = float(np.max(np.abs(alone[0] - among[0]))) / span
        if not worst <= _AGREE:
            raise PublisherError(
                "model_unsupported",
                f"A case gets another answer among others than alone (by {worst:.1%} of the range "
                "of the output).",
                hint="Export the model in evaluation mode, without operations across cases.",
            )


def _run(source: TorchModel, job: Job) -> Done:
    return run_job(
        job, source.example, source.python, time_limit_s=source.time_limit_s, on_line=source.on_line
    )


def _check_source(model: Path, done: Done) -> None:
    """The file ``model``, if exported here, names the weights that it was made from."""
    import onnx  # noqa: PLC0415

    metadata: Mapping[str, str] = {
        entry.key: entry.value
        for entry in onnx.load(model, load_external_data=False).metadata_props
    }
    if metadata.get(WEIGHTS_KEY, done.weights_sha256) != done.weights_sha256:
        raise _failed(
            f"{model.name} was exported from other weights than the function returns now.",
            hint="Export the model again.",
        )


def _failed(message: str, hint: str | None = None) -> PublisherError:
    return PublisherError("step_failed", message, hint=hint)
