"""One rollout in memory: its durable state, and what is rebuilt around it."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.cohorts import Cohorts
from edgefleet.rollout.fleet import Mask, Rows
from edgefleet.rollout.ledger import HELD, Ledger, Standing
from edgefleet.rollout.scope import Scope
from edgefleet.rollout.state import RolloutState

_EXACT = frozenset({Status.RUNNING, Status.PAUSED, Status.HALTED})
"""While a rollout stands so, its wave is exactly who was enrolled when the wave opened."""


@dataclass(frozen=True, slots=True)
class Published:
    """A release that can be offered."""

    manifest: ReleaseManifest
    manifest_sha256: str
    number: int  # in the fleet's columns


@dataclass(slots=True)
class Track:
    """``state`` is replaced whole on each commit; the rest lives as long as the engine."""

    state: RolloutState
    release: Published
    scope: Scope
    ledger: Ledger
    cohorts: Cohorts = field(default_factory=Cohorts)

    def wave_of(self, row: int) -> int | None:
        """The first wave that the device lies in; None beyond the open one."""
        if self.state.wave is None or not self.scope.eligible(row):
            return None
        for index in range(self.state.wave + 1):
            if self.scope.inside(row, self.state.waves[index]):
                return index
        return None

    def has_part(self, row: int, kind: OutcomeKind) -> bool:
        """May the device report this? It did before, lies in a wave, or is told to go back."""
        if self.ledger.standing(row) is not Standing.NONE:
            return True
        wave = self.state.open_wave
        if wave is None or not self.scope.eligible(row):
            return False
        if self.state.status in _EXACT:
            return self.scope.inside(row, wave)
        return kind is OutcomeKind.REVERTED or self.scope.below(row, wave)

    def covers(self, row: int, running: int) -> bool:
        """Does this rollout give the device its release? ``running``: the one it runs now.

        Who took it keeps it, wherever its labels move. One that is paused or halted gives it to
        nobody else, but leaves it to those who run it; a completed one takes newcomers by position.
        """
        standing = self.ledger.standing(row)
        if standing in (Standing.TRIAL, Standing.HEALTHY):
            return True
        wave = self.state.open_wave
        if wave is None or standing in HELD or not self.scope.eligible(row):
            return False
        if self.state.status is Status.COMPLETED:
            return self.scope.below(row, wave)
        exposes = self.state.status is Status.RUNNING or running == self.release.number
        return exposes and self.scope.inside(row, wave)

    def covered(self, rows: Rows, running: npt.NDArray[np.uint32]) -> Mask:
        """``covers`` for many rows at once, held devices among them."""
        standings = self.ledger.standings(rows)
        given: Mask = (standings == Standing.TRIAL) | (standings == Standing.HEALTHY)
        wave = self.state.open_wave
        if wave is None:
            return given
        if self.state.status is Status.COMPLETED:
            given |= self.scope.all_below(rows, wave)
        elif self.state.status is Status.RUNNING:
            given |= self.scope.all_inside(rows, wave)
        else:
            given |= self.scope.all_inside(rows, wave) & (running == self.release.number)
        return given
