"""Comparisons of answers with wanted answers, one for each kind of task.

``compare`` measures how well the answers of all cases agree with others: the truth gives accuracy,
the reference outputs give agreement. Both are from 0 to 1. A value that is not finite agrees with
nothing.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.comparisons import (
    PLUGIN_GROUP,
    Comparison,
    Cosine,
    Elementwise,
    Exact,
    MeanIou,
    MeanPrecision,
    PluginComparison,
    Top1,
)
from edgefleet.serving.average_precision import mean_precision
from edgefleet.serving.runtime import Tensor

Tensors = Mapping[str, Tensor]
"""Tensors by the name of the output, cases first."""


def compare(comparison: Comparison, got: Tensors, wanted: Tensors) -> float:
    """How well ``got`` agrees with ``wanted``, from 0 to 1.

    Raises PublisherError ``golden_mismatch`` if the shapes differ, or for an error of a plug-in.
    """
    try:
        match comparison:
            case Top1(output=name):
                return against_labels(got[name], classes_of(wanted[name]))
            case Elementwise():
                return _share(_all_close(comparison, got, wanted))
            case Cosine(output=name, least=least):
                return _share(cosines(got[name], wanted[name]) >= least)
            case Exact(outputs=names):
                return _share(np.logical_and.reduce([_equal(got[n], wanted[n]) for n in names]))
            case MeanIou(output=name, class_axis=axis):
                return _mean_iou(class_map(got[name], axis), class_map(wanted[name], axis))
            case MeanPrecision():
                return mean_precision(comparison, got, wanted)
            case PluginComparison(name=plugin):
                return _by_plugin(plugin, got, wanted)
    except ValueError as error:  # of NumPy, for shapes that do not fit
        raise PublisherError("golden_mismatch", f"The answers do not fit: {error}.") from error


def against_labels(scores: Tensor, labels: Tensor) -> float:
    """The share of cases whose highest score is that of their label."""
    classes = classes_of(scores)
    return _share((classes == labels) & (classes >= 0))


def worst_case(comparison: Comparison, got: Tensors, wanted: Tensors) -> str:
    """The case that differs most, in words. Empty if the comparison has no distance."""
    if not isinstance(comparison, Elementwise):
        return ""
    name, case, distance, found, expected = max(
        (_worst(name, got[name], wanted[name]) for name in comparison.outputs),
        key=lambda worst: worst[2],
    )
    return (
        "" if distance == 0 else f"case {case} of {name} is {found:.6g} instead of {expected:.6g}"
    )


def _by_plugin(name: str, got: Tensors, wanted: Tensors) -> float:
    found = [point for point in entry_points(group=PLUGIN_GROUP) if point.name == name]
    if not found:
        raise PublisherError(
            "golden_mismatch",
            f"The comparison {name!r} is not installed: no package has this entry point in "
            f"{PLUGIN_GROUP}.",
            hint="Install the publisher's package beside edgefleet.",
        )
    try:
        measure: Callable[[Tensors, Tensors], Any] = found[0].load()
        value = float(measure(got, wanted))
    except Exception as error:  # code of the publisher
        text = f"The comparison {name!r} failed: {type(error).__name__}: {error}"
        raise PublisherError("golden_mismatch", text) from error
    if not 0 <= value <= 1:
        raise PublisherError(
            "golden_mismatch", f"The comparison {name!r} gave {value}; it must be from 0 to 1."
        )
    return value


def _share(right: Tensor) -> float:
    return float(np.mean(right))


def classes_of(scores: Tensor) -> Tensor:
    """Arg max of each case. -1 if a score is not a number."""
    flat = scores.reshape(len(scores), -1)
    return np.where(np.isnan(flat).any(axis=1), -1, flat.argmax(axis=1))


def _all_close(comparison: Elementwise, got: Tensors, wanted: Tensors) -> Tensor:
    right: list[Tensor] = []
    for name in comparison.outputs:
        one, other = _flat(got[name]), _flat(wanted[name])
        limit = comparison.absolute + comparison.relative * np.abs(other)
        with np.errstate(invalid="ignore", over="ignore"):
            near: Tensor = np.asarray(np.isfinite(one) & (np.abs(one - other) <= limit))
        right.append(np.asarray(near.all(axis=1)))
    return np.asarray(np.logical_and.reduce(right))


def cosines(got: Tensor, wanted: Tensor) -> Tensor:
    """The cosine of each case. -2 if a value is not a number or a vector has no length."""
    one, other = _flat(got), _flat(wanted)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        found: Tensor = np.nan_to_num((one * other).sum(axis=1) / lengths, nan=-2.0, posinf=-2.0)
    return found


def _equal(got: Tensor, wanted: Tensor) -> Tensor:
    if got.shape != wanted.shape:
        raise ValueError(f"{got.shape} is not {wanted.shape}")
    equal: Tensor = (got == wanted).reshape(len(got), -1).all(axis=1)
    return equal


def class_map(scores: Tensor, axis: int) -> Tensor:
    """The class of each pixel, as the truth has it. -1 if a score is not a number."""
    if axis < 0 or scores.dtype == np.int64:
        return scores
    return np.where(np.isnan(scores).any(axis=axis), -1, scores.argmax(axis=axis))


def _mean_iou(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape:
        raise ValueError(f"{got.shape} is not {wanted.shape}")
    shares: list[float] = []
    for number in np.unique(wanted).tolist():
        mine, theirs = got == number, wanted == number
        shares.append(np.count_nonzero(mine & theirs) / np.count_nonzero(mine | theirs))
    return float(np.mean(shares))


def _flat(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1).astype(np.float64)


def _worst(name: str, got: Tensor, wanted: Tensor) -> tuple[str, int, float, float, float]:
    one, other = _flat(got), _flat(wanted)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.nan_to_num(np.abs(one - other), nan=np.inf)
    case, value = np.unravel_index(int(distance.argmax()), distance.shape)
    return (
        name,
        int(case),
        float(distance[case, value]),
        float(one[case, value]),
        float(other[case, value]),
    )
