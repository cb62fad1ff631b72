"""The mean average precision (mAP) of boxes, the usual measure of a detector."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgefleet.protocol.comparisons import MeanPrecision
from edgefleet.serving.runtime import Tensor


class _Boxes(NamedTuple):
    """The boxes of one case: corners [n, 4], scores [n], classes [n]."""

    corners: Tensor
    scores: Tensor
    classes: Tensor


class ClassMatches(NamedTuple):
    """The found boxes of one class in all cases, the highest score first.

    ``hits`` is 1 for a box that matches a wanted one, ``cases`` the case of each box. ``wanted``
    and ``sure`` are, by case, the numbers of wanted boxes and of found ones with ``min_score``.
    """

    hits: Tensor
    cases: Tensor
    wanted: Tensor
    sure: Tensor


def mean_precision(
    rule: MeanPrecision, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> float:
    """MAP of the boxes in ``got`` against those in ``wanted`` with at least ``rule.min_score``.

    A class that no case wants has the precision 0 if one of its boxes has at least
    ``rule.min_score``, and is not counted otherwise. Raises ValueError for shapes that do not fit.
    """
    matches = match_boxes(rule, got, wanted)
    if not matches:
        return 1.0
    return float(np.mean([_precision(one) for one in matches.values()]))


def match_boxes(
    rule: MeanPrecision, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[int, ClassMatches]:
    """The matches of each class that is counted. Raises ValueError for shapes that do not fit."""
    cases = len(got[rule.boxes])
    found = [_boxes(rule, got, case) for case in range(cases)]
    truth = [_above(_boxes(rule, wanted, case), rule.min_score) for case in range(cases)]
    sure = [_above(one, rule.min_score) for one in found]
    classes = {int(number) for one in (*truth, *sure) for number in one.classes.tolist()}
    return {
        number: _match_class(rule.iou, found, truth, sure, number) for number in sorted(classes)
    }


def _boxes(rule: MeanPrecision, tensors: Mapping[str, Tensor], case: int) -> _Boxes:
    """The boxes of a case. A box with a value that is not finite has the score -1."""
    boxes = tensors[rule.boxes][case].astype(np.float64)
    if not rule.scores:
        if boxes.ndim != 2 or boxes.shape[1] != 6:
            raise ValueError(f"boxes of shape {boxes.shape} are not [boxes, 6]")
        corners, scores, classes = boxes[:, :4], boxes[:, 4], boxes[:, 5]
    else:
        corners, scores = boxes, tensors[rule.scores][case].astype(np.float64)
        if rule.classes:
            classes = tensors[rule.classes][case].astype(np.float64)
        else:
            classes, scores = scores.argmax(axis=-1), scores.max(axis=-1)
    if corners.shape != (len(scores), 4) or scores.shape != classes.shape:
        raise ValueError(f"{corners.shape}, {scores.shape} and {classes.shape} are no boxes")
    finite = np.isfinite(corners).all(axis=1) & np.isfinite(scores) & np.isfinite(classes)
    whole = np.where(finite, classes, -1).astype(np.int64)
    return _Boxes(np.where(finite[:, None], corners, 0), np.where(finite, scores, -1), whole)


def _above(boxes: _Boxes, score: float) -> _Boxes:
    kept = boxes.scores >= score
    return _Boxes(boxes.corners[kept], boxes.scores[kept], boxes.classes[kept])


def _precision(matches: ClassMatches) -> float:
    """The area under the curve of precision over recall, for one class."""
    wanted = matches.wanted.sum()
    if not wanted:
        return 0.0
    right = np.cumsum(matches.hits)
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.diff(right / wanted, prepend=0.0)
    return float((envelope * recall).sum())


def _match_class(
    iou: float, found: list[_Boxes], truth: list[_Boxes], sure: list[_Boxes], number: int
) -> ClassMatches:
    scores: list[float] = []
    hits: list[bool] = []
    cases: list[int] = []
    for case, (one, other) in enumerate(zip(found, truth, strict=True)):
        corners = other.corners[other.classes == number]
        taken = np.zeros(len(corners), np.bool_)
        mine = np.flatnonzero((one.classes == number) & (one.scores > 0))
        for box in mine[np.argsort(-one.scores[mine], kind="stable")].tolist():
            overlap = np.where(taken, -1.0, _overlaps(one.corners[box], corners))
            best = int(overlap.argmax()) if len(overlap) else -1
            hit = best >= 0 and bool(overlap[best] >= iou)
            if hit:
                taken[best] = True
            scores.append(float(one.scores[box]))
            hits.append(hit)
            cases.append(case)
    order = np.argsort(-np.array(scores), kind="stable")
    return ClassMatches(
        np.array(hits, np.int64)[order],
        np.array(cases, np.int64)[order],
        np.array([np.count_nonzero(one.classes == number) for one in truth], np.int64),
        np.array([np.count_nonzero(one.classes == number) for one in sure], np.int64),
    )


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box with each of others."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = _area(box[None]) + _area(others) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0.0)


def _area(boxes: Tensor) -> Tensor:
    area: Tensor = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return area
