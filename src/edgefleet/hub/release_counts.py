"""Online devices by release over the last hour, sampled once a second.

The samples are kept in memory only; after a restart of the hub they start empty.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet.hub.limits import HISTORY_POINTS_SHOWN, HISTORY_S, HISTORY_STEP_S
from edgefleet.protocol.operator import HistoryPoint

_BEFORE_S: Final = 5.0  # shown before the start of a rollout
_AFTER_S: Final = 30.0  # shown after its end


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    on_release: Mapping[str, Mapping[str, int]]


class ReleaseHistory:
    """A ring buffer with at most one sample per ``HISTORY_STEP_S``."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=int(HISTORY_S / HISTORY_STEP_S))

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
            for sample in _thinned(found)
        )


def _thinned(samples: list[_Sample]) -> list[_Sample]:
    """At most ``HISTORY_POINTS_SHOWN`` samples, including the first and the last."""
    if len(samples) <= HISTORY_POINTS_SHOWN:
        return samples
    step = (len(samples) - 1) / (HISTORY_POINTS_SHOWN - 1)
    return [samples[round(number * step)] for number in range(HISTORY_POINTS_SHOWN)]
