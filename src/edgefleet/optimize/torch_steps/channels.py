"""In the child: removes whole channels, with everything that depends on them.

The dependencies (the next layer's inputs, batch norm, both sides of a residual sum) are found by
torch-pruning.
"""

# pyright: reportMissingImports=false

import copy
from collections.abc import Sequence
from typing import Any, Final

from edgefleet.base.errors import PublisherError

_ROUND_TO: Final = 8  # channels stay a multiple of this, as vector units want
_FEW: Final = 16  # a layer with fewer channels is rounded to less


def prune_channels(module: Any, given: Sequence[Any], share: float) -> None:
    """Remove about this share of the channels of each layer, in place, the least norm first.

    Layers that shape the output stay. Raises PublisherError ``step_failed`` if nothing can be
    removed, or the module cannot be traced.
    """
    import torch  # noqa: PLC0415

    try:
        import torch_pruning  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise PublisherError(
            "step_failed",
            "Pruning of channels needs the package torch-pruning.",
            hint="Install it beside PyTorch: pip install torch-pruning",
        ) from error
    module.eval()
    layers = _prunable(module)
    before = sum(one.numel() for one in module.parameters())
    with torch.no_grad():
        shapes = _shapes(module(*given))
    ignored = [one for name, one in layers.items() if _shapes_output(module, name, given, shapes)]
    narrow = min((_width(one) for one in layers.values() if one not in ignored), default=_ROUND_TO)
    pruner = torch_pruning.pruner.BasePruner(
        module,
        tuple(given),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=ignored,
        round_to=_ROUND_TO if narrow >= _FEW else None,
    )
    pruner.step()
    with torch.no_grad():
        after = _shapes(module(*given))
    if after != shapes:
        raise PublisherError("step_failed", f"Pruning changed the output from {shapes} to {after}.")
    if sum(one.numel() for one in module.parameters()) >= before:
        raise PublisherError("step_failed", "No channel of the model can be removed.")


def _prunable(module: Any) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    return {name: one for name, one in module.named_modules() if isinstance(one, kinds)}


def _width(layer: Any) -> int:
    return int(layer.weight.shape[0])


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    found = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [tuple(one.shape) for one in found]


def _shapes_output(
    module: Any, name: str, given: Sequence[Any], shapes: list[tuple[int, ...]]
) -> bool:
    """Whether a channel of this layer is one of the output: it is removed from a copy to see."""
    import torch  # noqa: PLC0415
    import torch_pruning  # noqa: PLC0415

    width = _width(module.get_submodule(name))
    if not any(width in shape[1:] for shape in shapes):
        return False
    tried = copy.deepcopy(module)
    graph = torch_pruning.DependencyGraph().build_dependency(tried, example_inputs=tuple(given))
    layer = tried.get_submodule(name)
    remove = (
        torch_pruning.prune_linear_out_channels
        if isinstance(layer, torch.nn.Linear)
        else torch_pruning.prune_conv_out_channels
    )
    graph.get_pruning_group(layer, remove, idxs=[0]).prune()
    with torch.no_grad():
        return _shapes(tried(*given)) != shapes
