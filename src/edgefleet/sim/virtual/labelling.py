"""Late labels of simulated devices: a share of the answers gets one, some time after the answer.

Which answers are correct is a function of device, release and number of the label, so the counters
only grow, and two runs of a seed agree.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.base.ids import device_hash
from edgefleet.protocol.labels import LABEL_RELEASES, LabelReport, ModelLabels, ReleaseLabels

MOST: Final = 4096  # labels of one release on one device
_SPREAD: Final = 0.04  # of the accuracy between devices, as their inputs are not alike


class Labelled(NamedTuple):
    """The labels of a fleet: the share of answers that gets one, and how late they are."""

    share: float = 0.0
    late_s: float = 0.0


class Stint(NamedTuple):
    """A time in which a release of a model answered. ``requests_s`` are its requests a second."""

    model: str
    release: str
    accuracy: float
    requests_s: float
    since: float
    until: float


def noted(stints: tuple[Stint, ...], now: Stint) -> tuple[Stint, ...]:
    """The stints with the current one, which ends at the time of the last probe."""
    last = stints[-1] if stints else None
    mine = next((one for one in reversed(stints) if one.model == now.model), last)
    if mine is not None and mine[:5] == now[:5]:
        return tuple(now if one is mine else one for one in stints)
    return (*stints, now)


def report(
    stints: tuple[Stint, ...], labelled: Labelled, now: float, *, epoch: int, row: int, luck: float
) -> LabelReport | None:
    """The counters of the labels until ``now``. None without labels."""
    seconds: dict[tuple[str, str], tuple[float, float]] = {}
    for one in stints:
        answered_s = max(0.0, min(one.until, now - labelled.late_s) - one.since)
        before, _ = seconds.get((one.model, one.release), (0.0, 0.0))
        seconds[one.model, one.release] = before + answered_s * one.requests_s, one.accuracy
    models: dict[str, list[ReleaseLabels]] = {}
    for (model, release), (answers, accuracy) in seconds.items():
        count = min(MOST, int(answers * labelled.share))
        if count:
            own = min(1.0, accuracy + _SPREAD * (luck - 0.5))
            correct = int(_correct(f"{model} {release} {row}", own)[count - 1])
            counts = ReleaseLabels(release=release, labelled=count, correct=correct)
            models.setdefault(model, []).append(counts)
    found = tuple(
        ModelLabels(model=model, releases=tuple(releases[-LABEL_RELEASES:]))
        for model, releases in models.items()
    )
    return LabelReport(epoch=epoch, models=found) if found else None


@lru_cache(maxsize=2048)
def _correct(name: str, accuracy: float) -> npt.NDArray[np.uint16]:
    """The number of correct answers among the first labels, for each number of labels."""
    draws = np.random.default_rng(device_hash(name)).random(MOST)
    found: npt.NDArray[np.uint16] = np.cumsum(draws < accuracy).astype(np.uint16)
    return found
