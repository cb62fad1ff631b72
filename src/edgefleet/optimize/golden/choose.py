"""Chooses the cases of a golden set: those in which a broken kernel would show.

A small error in a kernel changes the class of a case only if its two highest scores are close. So
half of the set are cases near the boundary of each pair of classes. A quarter are cases with the
extremes of each input, output and internal channel: they show saturation, overflow and a dropped
channel. The rest are the cases with the next smallest margins.

Deterministic: the same arrays give the same cases. The set is not a sample of the data, and the
accuracy on it is lower than on the data.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.paired import Floats
from edgefleet.optimize.samples import Array
from edgefleet.protocol.comparisons import MeanPrecision
from edgefleet.protocol.release import Task

BOUNDARY_SHARE: Final = 0.5
EXTREME_SHARE: Final = 0.25
FRAGILE: Final = 1e-3  # of the median margin: a closer case may differ on another processor
_MOST: Final = 100_000  # cases, where no answer may change
_CHANNELS: Final = 4_096  # of one tensor whose extremes are looked at


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen on all cases. Arrays by name, cases first.

    ``answers`` are the outputs of the shipped variants; those of the first are the reference.
    ``internal`` are activations inside of the model, with the channel as the second axis.
    """

    task: Task
    inputs: Arrays
    answers: Sequence[Arrays]
    output: str
    boxes: MeanPrecision | None = None  # of a detector
    internal: Arrays = field(default_factory=dict)


def choose_golden(observed: Observed, count: int) -> Array:
    """The rows of at most ``count`` cases, in rising order."""
    reference = observed.answers[0][observed.output]
    cases = len(reference)
    if cases <= count:
        return np.arange(cases)
    margins, groups = _margins_and_groups(observed)
    order = np.argsort(margins, kind="stable")
    sturdy = _sturdy(observed, margins)
    order = np.concatenate([order[sturdy[order]], order[~sturdy[order]]])
    chosen: dict[int, None] = {}
    _take(chosen, _by_turns(order, groups), int(count * BOUNDARY_SHARE))
    extremes = _extremes(observed)
    kept = [row for row in extremes if sturdy[row]]
    _take(chosen, kept, len(chosen) + int(count * EXTREME_SHARE))
    _take(chosen, order.tolist(), count)
    return np.array(sorted(chosen), np.int64)


def sensitive_count(min_agreement: float) -> int:
    """The most cases of a golden set in which a single changed answer is below ``min_agreement``.

    For 0.98: 49. In a larger set a fault must change two answers, or more, to be noticed.
    """
    return max(1, math.ceil(1 / (1 - min_agreement) - 1e-9) - 1) if min_agreement < 1 else _MOST


def margins_of(scores: Array) -> Floats:
    """The distance of the two highest scores of each case. 0 for a score that is not finite."""
    flat = scores.reshape(len(scores), -1).astype(np.float64)
    if flat.shape[1] < 2:
        return np.zeros(len(flat))
    highest = np.partition(flat, -2, axis=1)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(highest[:, -1] - highest[:, -2], nan=0.0, posinf=0.0)


def _margins_and_groups(observed: Observed) -> tuple[Floats, Array]:
    """How far each case is from another answer, and the kind of its answer."""
    answer = observed.answers[0][observed.output]
    match observed.task:
        case "classification":
            flat = answer.reshape(len(answer), -1)
            best = np.argsort(-flat, axis=1, kind="stable")
            second = best[:, min(1, flat.shape[1] - 1)]
            return margins_of(answer), best[:, 0] * flat.shape[1] + second
        case "segmentation" if answer.dtype.kind == "f" and answer.ndim > 2:
            pixels = np.moveaxis(answer, 1, -1).reshape(len(answer), -1, answer.shape[1])
            close = np.stack([margins_of(one) for one in pixels])
            least = np.quantile(close, 0.1, axis=1).astype(np.float64)
            return least, _most_common(pixels.argmax(axis=2))
        case "detection" if observed.boxes is not None:
            return _boxes(observed, observed.boxes)
        case "regression" | "embedding":
            # No boundary: cases spread over the sizes of the answer, the rarest first.
            size = np.linalg.norm(answer.reshape(len(answer), -1).astype(np.float64), axis=1)
            rank = np.argsort(np.argsort(size, kind="stable"), kind="stable")
            rarest = np.asarray(-np.abs(size - np.median(size)), np.float64)
            return rarest, rank * 16 // max(1, len(size))
        case _:
            spread = np.arange(len(answer)) * 0.618_033_988_75 % 1.0  # evenly, in any prefix
            return np.asarray(spread, np.float64), np.zeros_like(spread, np.int64)


def _boxes(observed: Observed, rule: MeanPrecision) -> tuple[Floats, Array]:
    """The distance of the score that is nearest to the limit, and the class of the best box."""
    answers = observed.answers[0]
    boxes = answers[rule.boxes].astype(np.float64)
    if rule.scores:
        scores = answers[rule.scores].astype(np.float64)
        if rule.classes:
            classes = answers[rule.classes]
        else:
            classes, scores = scores.argmax(axis=-1), scores.max(axis=-1)
    else:
        scores, classes = boxes[..., 4], boxes[..., 5]
    best = scores.argmax(axis=1)
    kinds = np.take_along_axis(classes, best[:, None], axis=1)[:, 0].astype(np.int64)
    return np.abs(scores - rule.min_score).min(axis=1), kinds


def _most_common(classes: Array) -> Array:
    return np.array([np.bincount(row).argmax() for row in classes])


def _sturdy(observed: Observed, margins: Floats) -> Array:
    """Cases in which all shipped variants give one answer, and not by a hair."""
    if observed.task != "classification":
        return np.ones(len(margins), np.bool_)
    answers = [
        one[observed.output].reshape(len(margins), -1).argmax(axis=1) for one in observed.answers
    ]
    same = np.logical_and.reduce([one == answers[0] for one in answers])
    return np.asarray(same & (margins > FRAGILE * np.median(margins)))


def _by_turns(order: Array, groups: Array) -> list[int]:
    """The first case of each group, then the second of each, and so on."""
    turns = np.zeros(len(order), np.int64)
    seen: dict[int, int] = {}
    for place, row in enumerate(order.tolist()):
        group = int(groups[row])
        turns[place] = seen[group] = seen.get(group, -1) + 1
    return [int(row) for row in order[np.argsort(turns, kind="stable")]]


def _extremes(observed: Observed) -> list[int]:
    """Cases by the number of channels of which they have the largest or the least value."""
    votes = np.zeros(len(observed.answers[0][observed.output]), np.int64)
    for array in (*observed.inputs.values(), *observed.answers[0].values(), *_peaks(observed)):
        if array.dtype.kind not in "fiu":
            continue
        flat = array.reshape(len(array), -1)[:, :_CHANNELS]
        varied = flat[:, flat.min(axis=0) < flat.max(axis=0)]
        if varied.size:
            votes += np.bincount(varied.argmax(axis=0), minlength=len(votes))
            votes += np.bincount(varied.argmin(axis=0), minlength=len(votes))
    order = np.argsort(-votes, kind="stable")
    return [int(row) for row in order[votes[order] > 0]]


def _peaks(observed: Observed) -> Iterable[Array]:
    """The largest activation of each channel inside of the model."""
    for array in observed.internal.values():
        yield array.reshape(*array.shape[:2], -1).max(axis=2)


def _take(chosen: dict[int, None], rows: Iterable[int], most: int) -> None:
    for row in rows:
        if len(chosen) >= most:
            return
        chosen.setdefault(row)
