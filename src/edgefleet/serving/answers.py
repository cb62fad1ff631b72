"""The recent answers of each model, so that labels that come later find theirs.

A bounded ring for each model, 22 bytes an answer. An answer is reduced to what the truth is
compared with: the top class of each item. A label counts for the release that gave the answer,
whichever release is active now, and an answer takes its first label only. So labels may arrive
late, twice, or by two ways.
"""

import os
import time
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.labels import (
    LABEL_RELEASES,
    Label,
    Labelled,
    LabelReport,
    ModelLabels,
    ReleaseLabels,
)
from edgefleet.serving.limits import ANSWERS_KEPT, RELEASES_REMEMBERED
from edgefleet.serving.runtime import Tensor

Places = npt.NDArray[np.intp]


class _Ring:
    """The recent answers of one model, and the counts of its labels."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._next = 0  # number of the next answer
        # Some elements of an array are written in half the time of those of NumPy.
        self._ids = array("q", bytes(8 * size))  # hashes of the ids
        self._times = array("d", bytes(8 * size))
        self._answers = array("i", bytes(4 * size))
        self._releases = bytearray(size)  # indices of ``_names``
        self._labelled = bytearray(size)
        self._names: list[str] = []
        self._counts: dict[str, list[int]] = {}  # release -> labelled and correct answers
        self._unmatched = 0

    def add(self, release: str, now: float, keys: Sequence[int], answers: Sequence[int]) -> None:
        """Add answers of one release. ``keys`` are the hashes of the ids of their requests."""
        if release not in self._names:
            self._remember(release)
        start = self._next % self._size
        count = min(len(answers), self._size - start)
        end = start + count
        self._next += count
        self._ids[start:end] = array("q", keys[:count])
        self._times[start:end] = array("d", (now,)) * count
        self._answers[start:end] = array("i", answers[:count])
        self._releases[start:end] = bytes((self._names.index(release),)) * count
        self._labelled[start:end] = bytes(count)
        if count < len(answers):
            self.add(release, now, keys[count:], answers[count:])

    def label(self, label: Label) -> Labelled:
        places = self._find(label)
        truths = label.truth if isinstance(label.truth, tuple) else (label.truth,)
        if label.id:
            one_request = len(places) and self._times[places[0]] == self._times[places[-1]]
            if not one_request or len(truths) != len(places):
                places = places[:0]
        else:
            truths *= len(places)
        if not len(places):
            self._unmatched += 1
            return Labelled(unmatched=1)
        fresh = correct = 0
        for place, truth in zip(places.tolist(), truths, strict=True):
            if self._labelled[place]:
                continue
            self._labelled[place] = 1
            is_correct = self._answers[place] == truth
            counts = self._counts_of(self._names[self._releases[place]])
            counts[0] += 1
            counts[1] += is_correct
            fresh += 1
            correct += is_correct
        return Labelled(labelled=fresh, correct=correct, repeated=len(places) - fresh)

    def report(self, model: str) -> ModelLabels:
        return ModelLabels(
            model=model,
            unmatched=self._unmatched,
            releases=tuple(
                ReleaseLabels(release=release, labelled=labelled, correct=correct)
                for release, (labelled, correct) in self._counts.items()
            ),
        )

    def _find(self, label: Label) -> Places:
        """The places of the answers that the label names, oldest first."""
        if label.id:
            found = np.frombuffer(self._ids, np.int64) == hash(label.id)
        else:
            times = np.frombuffer(self._times)
            found = (times >= (label.since or 0.0)) & (times <= (label.until or 0.0))
        found[self._next :] = False  # never filled
        places = np.flatnonzero(found)
        start = self._next % self._size if self._next > self._size else 0
        return np.concatenate([places[places >= start], places[places < start]])

    def _remember(self, release: str) -> None:
        """Give the release an index. Forget all answers if the indices are used up."""
        if len(self._names) == RELEASES_REMEMBERED:
            self._names.clear()
            self._next = 0
        self._names.append(release)

    def _counts_of(self, release: str) -> list[int]:
        if release not in self._counts and len(self._counts) == LABEL_RELEASES:
            del self._counts[next(iter(self._counts))]
        return self._counts.setdefault(release, [0, 0])


class Answers:
    """The recent answers of all models of this process, and the counts of their labels."""

    def __init__(self, size: int = ANSWERS_KEPT) -> None:
        self._size = size
        self._epoch = time.time_ns() >> 10 & ((1 << 53) - 1) or 1
        self._rings: dict[str, _Ring] = {}
        self._prefix = os.urandom(6).hex()
        self._made = 0

    def new_id(self) -> str:
        """An id for a request without one. No other process makes the same."""
        self._made += 1
        return f"{self._prefix}-{self._made}"

    def add(self, model: str, release: str, request_id: str, scores: Tensor) -> None:
        """Remember an answer. ``scores`` have the shape (batch, classes)."""
        if not scores.size:
            return
        items = scores.size // scores.shape[-1]
        tops = scores.reshape(items, -1).argmax(axis=1).tolist()
        self.add_all(model, release, [request_id], [tops])

    def add_all(
        self, model: str, release: str, ids: Iterable[str], tops: Sequence[Sequence[int]]
    ) -> None:
        """Remember the answers of one run: of each the id, and the top class of each item.

        Without ``tops`` there is nothing to remember.
        """
        ring = self._rings.get(model)
        if ring is None:
            ring = self._new_ring(model)
        keys = [hash(one) for one, items in zip(ids, tops, strict=False) for _ in items]
        ring.add(release, time.time(), keys, list(chain.from_iterable(tops)))

    def label(self, model: str, labels: Iterable[Label]) -> Labelled:
        """Compare labels with the answers. Labels of a model without answers are unmatched."""
        ring = self._rings.get(model)
        if ring is None:
            ring = self._new_ring(model)
        results = [ring.label(label) for label in labels]
        return Labelled(
            labelled=sum(one.labelled for one in results),
            correct=sum(one.correct for one in results),
            repeated=sum(one.repeated for one in results),
            unmatched=sum(one.unmatched for one in results),
        )

    def report(self) -> LabelReport | None:
        """The counters. None without labels."""
        models = [ring.report(model) for model, ring in self._rings.items()]
        found = tuple(one for one in models if one.releases or one.unmatched)
        return LabelReport(epoch=self._epoch, models=found) if found else None

    def _new_ring(self, model: str) -> _Ring:
        if len(self._rings) == MODELS_PER_DEVICE:
            del self._rings[next(iter(self._rings))]
        ring = self._rings[model] = _Ring(self._size)
        return ring
