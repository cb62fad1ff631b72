"""The releases that the devices of a plan run today: those to replace, and those that stay."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import RELEASES_NAMED


class RunningToday(NamedTuple):
    """The devices of a plan by what they run today. ``left_out`` devices count nowhere else."""

    adds: int  # devices that do not run the model
    had_model: int  # devices that do
    replaced: dict[str, int]  # of these, by other releases of the model
    beside: dict[str, int]  # by other models ("detector 3")
    left_out: dict[str, int]  # devices that get nothing until a person acts, by wait code


def count_today(
    fleet: Fleet, rows: Rows, blocked: Mapping[str, Rows], model: str, release: str
) -> RunningToday:
    """Count what the devices in ``rows`` run, beside ``release`` of ``model``.

    ``blocked`` has the devices that wait for a person, ascending, by wait code.
    """
    left_out: dict[str, int] = {}
    for code, out in blocked.items():
        is_out = np.isin(rows, out, assume_unique=True)
        rows = rows[~is_out]
        if count := int(np.count_nonzero(is_out)):
            left_out[code] = count
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
    have = int(np.count_nonzero(fleet.models.all_have(rows, model)))
    return RunningToday(len(rows) - have, have, _most(replaced), _most(beside), left_out)


def _most(counts: dict[str, int]) -> dict[str, int]:
    """The most frequent RELEASES_NAMED, by name, and the sum of the others as "others"."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[RELEASES_NAMED:])
    return dict(sorted(ranked[:RELEASES_NAMED])) | ({"others": rest} if rest else {})
