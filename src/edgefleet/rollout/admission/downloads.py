"""Admission of downloads: by the position of a device, and by the byte budget."""

from typing import Final

import numpy as np

from edgefleet.protocol.device import Phase
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.label_budget import Budgets
from edgefleet.rollout.constraints.pace import ByteBudget
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows, RowSelection
from edgefleet.rollout.fleet.cut import EVERYONE
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.reports import phase_code

_STAGING: Final = frozenset({Phase.FETCHING, Phase.PROVING, Phase.STAGED})
_LATER: Final = Blocked(
    WaitCode.EXPOSURE,
    "Other devices download the release first; this device follows when more devices may start.",
)
_STAGING_CODES: Final = [phase_code(phase) for phase in _STAGING]


def blocked(
    active: ActiveRollout, fleet: Fleet, row: int, now: float, budget: ByteBudget
) -> Blocked | None:
    """The reason why a device that has not started may not download now. None if it may.

    A device that is downloading may continue. Changes nothing.
    """
    staging = fleet.models.phase(row, active.model) in _STAGING
    if not staging and active.scope.position(row) >= active.candidates.below:
        return _LATER
    if staging or not budget.is_bounded or active.reservations.has_download(row):
        return None
    spec, size_bytes = active.state.spec, _size_bytes(active, fleet.profile(row))
    until = budget.wait_until(spec.pace, spec.site_label, fleet.labels(row), size_bytes, now)
    if until is None:
        return None
    text = "The byte rate of the plan is used up by other downloads."
    return Blocked(WaitCode.PACE, text, until)


def count_bytes(
    active: ActiveRollout, fleet: Fleet, row: int, now: float, budget: ByteBudget
) -> None:
    """Consume the bytes of a download from the budget, once for each rollout and device."""
    if active.reservations.begin_download(row):
        budget.consume(fleet.labels(row), _size_bytes(active, fleet.profile(row)), now)


def all_may_stage(active: ActiveRollout, fleet: Fleet, rows: Rows) -> Mask:
    """For each row: True if ``blocked`` is None. For a rollout without a limit on bytes."""
    mask = np.isin(fleet.models.all_phases(rows, active.model), _STAGING_CODES)
    if active.candidates.below >= EVERYONE:
        mask[:] = True
    else:
        mask |= active.scope.positions(rows) < np.uint64(active.candidates.below)
    return mask


def open_candidates(active: ActiveRollout, fleet: Fleet, allowed: int, budgets: Budgets) -> None:
    """Choose the first candidates of a wave that may have opened."""
    wave = active.state.open_wave
    if wave is not None and wave.cut:
        begun = sum(active.ledger.count(standing) for standing in DeviceStanding if standing)
        active.candidates.open(
            allowed=_soon(active, fleet, allowed, budgets),
            begun=begun,
            cut=wave.cut,
            now=wave.opened_at or 0.0,
        )


def renew_candidates(
    active: ActiveRollout,
    fleet: Fleet,
    waiting: RowSelection,
    *,
    allowed: int,
    budgets: Budgets,
    now: float,
) -> None:
    """Add candidates if more devices may start. ``waiting`` are online and have not started."""
    soon, begun = _soon(active, fleet, allowed, budgets), active.ledger.version
    stale = active.candidates.is_stale(allowed=soon, begun=begun, now=now)
    if active.state.status is not Status.RUNNING or not stale:
        return
    rows = waiting.all()
    full = budgets.blocked(active.state.spec.budgets, rows, fleet)
    free = rows[~(full | active.tally.all_full(rows, active.state.spec.exposure))]
    if len(waiting) and not len(free):
        active.candidates.pause(now)
    else:
        places = active.scope.positions(free)
        active.candidates.renew(places, allowed=soon, begun=begun, now=now)


def _soon(active: ActiveRollout, fleet: Fleet, allowed: int, budgets: Budgets) -> int:
    """The number of devices that may start soon, at least 1."""
    a_minute = active.state.spec.pace.starts_per_minute
    places = budgets.places(active.state.spec.budgets, fleet)
    bounds = (allowed, a_minute or allowed, allowed if places is None else places)
    return max(1, min(bounds))


def _size_bytes(active: ActiveRollout, profile: str) -> int:
    """The bytes that a device of ``profile`` downloads."""
    manifest = active.release.manifest
    sizes = [v.artifact.size_bytes for v in manifest.variants if v.profile == profile]
    return manifest.golden.artifact.size_bytes + sum(sizes)
