"""Online devices by release over the last hour, sampled once a second.

The samples are in memory, and a part of them is kept in a file for the next hub: a kill loses those
since the last write.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec

from edgefleet.hub.limits import (
    HISTORY_POINTS_KEPT,
    HISTORY_POINTS_SHOWN,
    HISTORY_S,
    HISTORY_STEP_S,
)
from edgefleet.protocol.operator import HistoryPoint
from edgefleet.protocol.wire import Wire, encode

_BEFORE_S: Final = 5.0  # shown before the start of a rollout
_AFTER_S: Final = 30.0  # shown after its end


class _Sample(Wire, frozen=True):
    at: float
    on_release: Mapping[str, Mapping[str, int]]


class ReleaseHistory:
    """A ring buffer with at most one sample per ``HISTORY_STEP_S``."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=int(HISTORY_S / HISTORY_STEP_S))

    def stored(self) -> bytes:
        """At most ``HISTORY_POINTS_KEPT`` of the samples, evenly thinned, for ``load``."""
        return encode(_thinned(list(self._samples), HISTORY_POINTS_KEPT))

    def load(self, data: bytes) -> None:
        """Load the result of ``stored``. Damaged data are ignored."""
        with suppress(msgspec.MsgspecError):
            self._samples.extend(msgspec.json.decode(data or b"[]", type=list[_Sample]))

    def due(self, now: float) -> bool:
        """Whether the last sample is ``HISTORY_STEP_S`` old, or in the future (clock set back)."""
        if not self._samples:
            return True
        return not 0 <= now - self._samples[-1].at < HISTORY_STEP_S

    def sample(self, now: float, on_release: Mapping[str, Mapping[str, int]]) -> None:
        """Add a sample: model -> release -> online devices."""
        self._samples.append(_Sample(now, on_release))

    def points(
        self, model: str, started_at: float | None, ended_at: float | None
    ) -> tuple[HistoryPoint, ...]:
        """Samples of ``model`` from the start to the end, evenly reduced in number."""
        begin = 0.0 if started_at is None else started_at - _BEFORE_S
        end = float("inf") if ended_at is None else ended_at + _AFTER_S
        found = [sample for sample in self._samples if begin <= sample.at <= end]
        return tuple(
            HistoryPoint(at=sample.at, on_release=dict(sample.on_release.get(model, {})))
            for sample in _thinned(found, HISTORY_POINTS_SHOWN)
        )


def _thinned(samples: list[_Sample], most: int) -> list[_Sample]:
    """At most ``most`` samples, including the first and the last."""
    if len(samples) <= most:
        return samples
    step = (len(samples) - 1) / (most - 1)
    return [samples[round(number * step)] for number in range(most)]
