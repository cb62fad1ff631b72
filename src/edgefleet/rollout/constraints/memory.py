"""Memory: a device is not offered a release that does not fit beside the models it runs now.

A plan counts only the devices on which the release fits beside the models that they should run. A
device may still run another release meanwhile: one that is being rolled back, or that it keeps.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.memory_fit import Need
from edgefleet.rollout.fleet.release_sets import ReleaseSet

Limits = Mapping[str, int]
"""The memory limits of a release in MiB, by profile."""


class Memory:
    """Blocks the offer of a release that does not fit beside the other models that run now."""

    code: ClassVar = WaitCode.MEMORY
    blocks_downloads: ClassVar = True

    def __init__(self, fleet: Fleet) -> None:
        self.is_active = False  # the releases are of one model
        self._fleet = fleet
        self._limits: dict[int, Limits] = {}  # by release number
        self._rollouts: dict[str, int] = {}

    def add_release(self, number: int, limits: Limits) -> None:
        """Make the limits of a release known."""
        self._limits[number] = limits
        self.is_active = self._fleet.models.model_count > 1

    def add_rollout(self, rollout: str, number: int) -> None:
        """Make a rollout known, by the number of its release."""
        self._rollouts[rollout] = number

    def blocks(self, rollout: str, model: str, row: int) -> bool:
        """See ``DeviceConstraint``."""
        return self._fleet.limits_memory and not self._need(rollout, model, row).fits

    def blocked_rows(self, rollout: str, model: str) -> Rows:
        """See ``DeviceConstraint``."""
        fleet = self._fleet
        if not fleet.limits_memory:
            return np.zeros(0, np.int64)
        sets = fleet.models.sets
        key = fleet.kit_ids.astype(np.int64) * len(sets) + fleet.models.set_numbers(len(fleet))
        blocked = np.zeros(fleet.kit_count * len(sets), np.bool_)
        for number in np.flatnonzero(np.bincount(key)).tolist():
            kit_id, set_number = divmod(number, len(sets))
            need = self._need_of(rollout, model, kit_id, sets[set_number])
            blocked[number] = not need.fits
        return np.flatnonzero(blocked[key])

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:
        """See ``DeviceConstraint``."""
        return np.isin(rows, self.blocked_rows(rollout, model))

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``. The sentence for one device has the numbers in MiB."""
        if row is None:
            return (
                "The release does not fit into the memory beside the models that these devices "
                "run now."
            )
        fleet, release = self._fleet, fleet_release(self._fleet, self._rollouts[rollout])
        need = self._need(rollout, release[0], row)
        running = ", ".join(
            " ".join(fleet_release(fleet, number))
            for model, number in fleet.set_of(row).releases
            if model != release[0]
        )
        return (
            f"Release {release[1]} of {release[0]} may use {need.limit_mib} MiB; this device has "
            f"{need.total_mib} MiB for its models, and {running} may use {need.taken_mib} MiB of "
            "these now."
        )

    def _need(self, rollout: str, model: str, row: int) -> Need:
        fleet = self._fleet
        return self._need_of(rollout, model, fleet.kit_id(row), fleet.set_of(row))

    def _need_of(self, rollout: str, model: str, kit_id: int, running: ReleaseSet) -> Need:
        kit = self._fleet.kit(kit_id)
        taken = sum(
            self._limit(number, kit.profile) for other, number in running.releases if other != model
        )
        limit = self._limit(self._rollouts[rollout], kit.profile)
        return Need(limit, taken, kit.models_memory_mib)

    def _limit(self, number: int, profile: str) -> int:
        limits = self._limits.get(number)
        return 0 if limits is None else limits.get(profile, 0)


def fleet_release(fleet: Fleet, number: int) -> tuple[str, str]:
    """The model and the release with this number."""
    return fleet.models.release_named(number) or ("", "")
