"""The releases that the devices of a plan run today: those to replace, and those that stay."""

from typing import NamedTuple

import numpy as np

from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import RELEASES_NAMED


class RunningToday(NamedTuple):
    """Devices by other releases of the model, and by other models ("detector 3")."""

    replaced: dict[str, int]
    beside: dict[str, int]


def count_running(fleet: Fleet, rows: Rows, model: str, release: str) -> RunningToday:
    """Count what the devices in ``rows`` run beside ``release`` of ``model``."""
    mask = np.zeros(len(fleet), np.bool_)
    mask[rows] = True
    replaced: dict[str, int] = {}
    beside: dict[str, int] = {}
    for number, count in fleet.models.count(mask)[0].items():
        named = fleet.models.release_named(number)
        if named is None:
            continue
        if named[0] != model:
            beside[f"{named[0]} {named[1]}"] = count
        elif named[1] != release:
            replaced[named[1]] = count
    return RunningToday(_most(replaced), _most(beside))


def _most(counts: dict[str, int]) -> dict[str, int]:
    """The most frequent RELEASES_NAMED, by name, and the sum of the others as "others"."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[RELEASES_NAMED:])
    return dict(sorted(ranked[:RELEASES_NAMED])) | ({"others": rest} if rest else {})
