"""Devices with something to do: the real agent core's state, and what surrounds that core."""

from collections.abc import Iterator
from copy import copy

import numpy as np
import numpy.typing as npt

from edgefleet.agent.state import AgentState, InstalledRelease, SlotName
from edgefleet.protocol.serving import ServingStatus
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.scenario import NEW, Truth


def fates(luck: npt.NDArray[np.float64], truth: Truth) -> npt.NDArray[np.intp]:
    """A number for each luck: equal where the release does the same to the devices."""
    shares = (truth.fails, truth.crashes, truth.bricks, truth.refuses, truth.burns)
    return np.digitize(luck, np.cumsum(shares))


class Live:
    """Materialised devices that are alike in everything here: most often one, or ``rows`` of them.

    As a core is a function, one step of it is the step of them all. What the world says to some of
    them only parts them. ``stored`` is what their disks hold of the state. ``life`` grows with
    every power cut, so that nothing of an earlier life is heard in a later one. ``luck`` in [0, 1)
    says once and for all what the new release does to these devices.
    """

    __slots__ = (
        "bytes_s", "came", "installed", "life", "luck", "parts", "pid", "pointer", "pushed_at",
        "requests_s", "row", "rows", "skew", "state", "stays", "stored", "swapped_at", "timer_at",
    )  # fmt: skip

    def __init__(self, rows: Rows, state: AgentState, luck: float) -> None:
        self.rows = rows  # ascending
        self.row = int(rows[0])
        self.parts: tuple[Live, ...] = ()  # what it came apart into; then it is of no use itself
        self.state = self.stored = state
        self.luck = luck
        self.life = 0
        self.pid = 1
        self.skew = 0.0  # its clock, less the true time
        self.timer_at = self.pushed_at = float("inf")
        self.installed: InstalledRelease | None = None  # what its serving process serves
        self.pointer: SlotName | None = None
        self.swapped_at = 0.0
        self.requests_s = 0.0
        self.bytes_s = 1.0
        self.came = 0.0  # bytes of the download under way
        self.stays = False  # sends figures all the time, and so is never folded

    def part(self, rows: tuple[Rows, ...]) -> "tuple[Live, ...]":
        """Let it come apart into these."""
        parts: list[Live] = []
        for mine in rows:
            part = copy(self)
            part.rows, part.row = mine, int(mine[0])
            parts.append(part)
        self.parts = tuple(parts)
        return self.parts

    def whole(self) -> "Iterator[Live]":
        """Itself, or what it came apart into."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.whole()

    def status(self, now: float, truth: Truth) -> ServingStatus | None:
        """What a look at the serving process says; None when there is none."""
        installed = self.installed
        if installed is None:
            return None
        since_s = now - self.swapped_at
        new = installed.release == NEW
        if new and _crashed(self.luck, truth):
            self.installed = None
            self.pid += 1
            return None
        requests = int(since_s * self.requests_s)
        errors = 0
        if new:
            if self.luck < truth.fails:
                errors = requests * 3 // 10
            elif burns(self.luck, truth) and since_s > truth.burns_after_s:
                errors = int((since_s - truth.burns_after_s) * self.requests_s) // 2
        own = figures.truth_of(installed.release, truth)
        if self.stays:
            stats = figures.sketched(own, requests, errors, self.luck)
        else:
            stats = figures.plain(own, requests, errors)
        return ServingStatus(
            pid=self.pid,
            ready=True,
            model=installed.model,
            release=installed.release,
            artifact_sha256=installed.variant.artifact.sha256,
            stats=stats,
        )


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
