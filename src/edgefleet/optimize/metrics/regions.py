"""Metrics of detectors and of segmentation: mean average precision and mean IoU."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.metrics.score import Score, array_of, failed, of_resamples, same_cases
from edgefleet.optimize.paired import Counts, Floats
from edgefleet.protocol.comparisons import MeanIou, MeanPrecision
from edgefleet.serving.average_precision import ClassMatches, match_boxes
from edgefleet.serving.comparisons import class_map

_CELLS: Final = 4_000_000  # of an array [resamples, boxes]


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """MAP at the overlap ``rule.iou``, as ``serving.average_precision`` defines it.

    The boxes are matched once. A resample counts the boxes of a case as often as the case is drawn.
    """

    rule: MeanPrecision
    name: str = "map"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        for key in filter(None, (self.rule.boxes, self.rule.scores, self.rule.classes)):
            same_cases(
                self.name,
                array_of(self.name, got, key, "output"),
                array_of(self.name, truth, key, "right answer"),
            )
        try:
            matches = match_boxes(self.rule, got, truth)
        except ValueError as error:
            raise failed(self.name, f"{error}.") from error

        def values(counts: Counts) -> Floats:
            found = np.array([_precisions(one, counts) for one in matches.values()])
            present = ~np.isnan(found)
            total = np.where(present, found, 0.0).sum(axis=0)
            classes = present.sum(axis=0)
            return np.where(classes > 0, total / np.maximum(classes, 1), 1.0)

        cases = len(got[self.rule.boxes])
        return of_resamples(values if matches else _all_right, cases)


@dataclass(frozen=True, slots=True)
class MeanIntersection:
    """The mean over the classes of intersection over union, of the pixels of all cases.

    Classes that the truth lacks are left out, in each resample.
    """

    rule: MeanIou
    name: str = "iou"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        scores = array_of(self.name, got, self.rule.output, "output")
        wanted = array_of(self.name, truth, self.rule.output, "right answer")
        same_cases(self.name, scores, wanted)
        found = class_map(scores, self.rule.class_axis)
        if found.shape != wanted.shape:
            raise failed(
                self.name, f"the classes have the shape {found.shape}, the truth {wanted.shape}."
            )
        mine, theirs = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
        parts = [(mine == number, theirs == number) for number in np.unique(theirs)]
        common = np.array([(a & b).sum(axis=1) for a, b in parts], np.float64)
        either = np.array([(a | b).sum(axis=1) for a, b in parts], np.float64)
        wanting = np.array([b.sum(axis=1) for _, b in parts], np.float64)

        def values(counts: Counts) -> Floats:
            weights = counts.T.astype(np.float64)
            present = wanting @ weights > 0
            shares = (common @ weights) / np.maximum(either @ weights, 1)
            total: Floats = np.where(present, shares, 0.0).sum(axis=0)
            return np.asarray(total / present.sum(axis=0))

        return of_resamples(values, len(found))


def _all_right(counts: Counts) -> Floats:
    """No box is wanted and none is found."""
    return np.ones(len(counts))


def _precisions(matches: ClassMatches, counts: Counts) -> Floats:
    """The average precision of one class in each resample. NaN: the class is not counted."""
    wanted = counts @ matches.wanted
    rows = max(1, _CELLS // max(1, len(matches.hits)))
    areas = np.concatenate(
        [_areas(matches, counts[at : at + rows]) for at in range(0, len(counts), rows)]
    )
    absent = np.where(counts @ matches.sure > 0, 0.0, np.nan)
    return np.where(wanted > 0, areas / np.maximum(wanted, 1), absent)


def _areas(matches: ClassMatches, counts: Counts) -> Floats:
    """The area under precision over the number of hits."""
    if not len(matches.hits):
        return np.zeros(len(counts))
    weights = counts[:, matches.cases].astype(np.float64)
    hits = weights * matches.hits
    right = hits.cumsum(axis=1)
    precision = right / np.maximum(weights.cumsum(axis=1), 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area: Floats = (envelope * hits).sum(axis=1)
    return area
