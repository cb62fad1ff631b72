"""In the child: masks that hold single weights at zero while the model is trained.

No runtime of edgefleet computes faster for it: the file keeps its size, and its compressed transfer
shrinks. The pattern 2:4 can be faster on NVIDIA GPUs from the Ampere generation on, with TensorRT
and sparsity enabled; that was not measured.
"""

# pyright: reportMissingImports=false

from typing import Any, Final

from edgefleet.base.errors import PublisherError

_GROUP: Final = 4
_KEPT: Final = 2


def mask_weights(module: Any, share: float) -> list[Any]:
    """Hold the ``share`` of all weights with the least magnitude at zero. Returns the layers."""
    from torch.nn.utils import prune  # noqa: PLC0415

    layers = _layers(module)
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=share
    )
    return layers


def mask_two_of_four(module: Any) -> list[Any]:
    """Of each four neighbouring input channels, hold the two least at zero. Returns the layers.

    A layer whose input channels are no multiple of four stays as it is. Raises PublisherError
    ``step_failed`` if there is no other.
    """
    from torch.nn.utils import prune  # noqa: PLC0415

    layers = [one for one in _layers(module) if one.weight.shape[1] % _GROUP == 0]
    if not layers:
        raise PublisherError(
            "step_failed", f"No layer has a multiple of {_GROUP} input channels to be pruned 2:4."
        )
    for layer in layers:
        prune.custom_from_mask(layer, "weight", two_of_four(layer.weight.detach()))
    return layers


def two_of_four(weight: Any) -> Any:
    """The mask of a weight whose second axis are input channels: ones where it is kept."""
    import torch  # noqa: PLC0415

    moved = weight.movedim(1, -1)
    groups = moved.abs().reshape(*moved.shape[:-1], -1, _GROUP)
    kept = groups.topk(_KEPT, dim=-1).indices
    mask = torch.zeros_like(groups).scatter_(-1, kept, 1.0)
    return mask.reshape(moved.shape).movedim(-1, 1).contiguous()


def make_permanent(layers: list[Any]) -> None:
    """Write the zeros into the weights, and remove the masks."""
    from torch.nn.utils import prune  # noqa: PLC0415

    for layer in layers:
        prune.remove(layer, "weight")


def _layers(module: Any) -> list[Any]:
    import torch  # noqa: PLC0415

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    found = [one for one in module.modules() if isinstance(one, kinds)]
    if not found:
        raise PublisherError("step_failed", "The model has no linear or convolutional layer.")
    return found
