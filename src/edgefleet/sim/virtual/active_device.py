"""Active devices: the state of the real agent core, and of the process and disk around it."""

import math
from collections.abc import Iterator
from copy import copy

import numpy as np
import numpy.typing as npt

from edgefleet.agent.state import AgentState, InstalledRelease, SlotName
from edgefleet.protocol.serving import ModelStatus, ServingStatus
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.scenario import NEW, Truth


def fates(luck: npt.NDArray[np.float64], truth: Truth) -> npt.NDArray[np.intp]:
    """A number for each luck. Equal numbers mean that the release behaves alike."""
    shares = (truth.fails, truth.crashes, truth.bricks, truth.refuses, truth.burns)
    return np.digitize(luck, np.cumsum(shares))


class ActiveDevice:
    """One active device, or several (``rows``) that are equal in every attribute here.

    A core is a pure function, so one step serves all of these devices. An event for only some of
    them splits the group. ``stored`` is the state on their disks. ``life`` grows with every power
    cut, so that no event of an earlier life reaches a later one. ``luck`` in [0, 1) is fixed, and
    decides how the new release behaves on these devices.
    """

    __slots__ = (
        "bytes_s", "came", "incumbent", "installed", "life", "luck", "on_trial", "parts",
        "pid", "pointer", "pushed_at", "requests_s", "row", "rows", "skew", "state", "stays",
        "stored", "swapped_at", "timer_at",
    )  # fmt: skip

    def __init__(self, rows: Rows, state: AgentState, luck: float) -> None:
        self.rows = rows  # ascending
        self.row = int(rows[0])
        self.parts: tuple[
            ActiveDevice, ...
        ] = ()  # the groups after a split; then only these are used
        self.state = self.stored = state
        self.luck = luck
        self.life = 0
        self.pid = 1
        self.skew = 0.0  # the device's clock minus the true time, in seconds
        self.timer_at = self.pushed_at = float("inf")
        self.installed: InstalledRelease | None = None  # the release that the process serves
        self.on_trial = False  # the served release is not confirmed
        self.incumbent: InstalledRelease | None = None  # loaded beside the release in trial
        self.pointer: dict[str, SlotName] = {}  # never changed in place: groups share it
        self.swapped_at = 0.0
        self.requests_s = 0.0
        self.bytes_s = 1.0
        self.came = 0.0  # bytes of the current download that have arrived
        self.stays = False  # sends telemetry all the time, and so never becomes idle

    def part(self, rows: tuple[Rows, ...]) -> "tuple[ActiveDevice, ...]":
        """Split the group into one group for each of ``rows``."""
        parts: list[ActiveDevice] = []
        for mine in rows:
            part = copy(self)
            part.rows, part.row = mine, int(mine[0])
            parts.append(part)
        self.parts = tuple(parts)
        return self.parts

    def whole(self) -> "Iterator[ActiveDevice]":
        """The group itself, or the groups after its splits."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.whole()

    def true_time(self, at: float) -> float:
        """The first true time at which the device's clock shows ``at`` or later."""
        true = at - self.skew
        while true + self.skew < at:  # rounding: by the device's clock it would be too early
            true = math.nextafter(true, math.inf)
        return true

    def status(self, now: float, truth: Truth) -> ServingStatus | None:
        """The status that a probe of the serving process returns. None if it is not running."""
        installed = self.installed
        if installed is None:
            return None
        since_s = now - self.swapped_at
        new = installed.release == NEW
        if new and _crashed(self.luck, truth):
            return self._crash(installed)
        own = figures.truth_of(installed.release, truth)
        requests_s = self.requests_s * own.requests
        requests = int(since_s * requests_s)
        errors = 0
        if new:
            if self.luck < truth.fails:
                errors = requests * 3 // 10
            elif burns(self.luck, truth) and since_s > truth.burns_after_s:
                errors = int((since_s - truth.burns_after_s) * requests_s) // 2
        if self.stays:
            stats = figures.sketched(own, requests, errors, self.luck)
        else:
            stats = figures.plain(own, requests, errors)
        mine = ModelStatus(
            model=installed.model,
            release=installed.release,
            artifact_sha256=installed.variant.artifact.sha256,
            ready=True,
            on_trial=self.on_trial,
            stats=stats,
        )
        return ServingStatus(pid=self.pid, models=(mine,))

    def _crash(self, crashed: InstalledRelease) -> ServingStatus | None:
        """The status after the release crashed: its worker in trial, else the process."""
        self.installed = None
        if not self.on_trial:
            self.pid += 1
            return None
        answers = self.incumbent or crashed
        mine = ModelStatus(
            model=answers.model,
            release=answers.release,
            artifact_sha256=answers.variant.artifact.sha256,
            ready=self.incumbent is not None,
            trial_ended="The worker crashed.",
        )
        return ServingStatus(pid=self.pid, models=(mine,))


def refuses(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes + truth.bricks
    return low <= luck < low + truth.refuses


def bricks(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes
    return low <= luck < low + truth.bricks


def _crashed(luck: float, truth: Truth) -> bool:
    return truth.fails <= luck < truth.fails + truth.crashes


def burns(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes + truth.bricks + truth.refuses
    return low <= luck < low + truth.burns
