"""The evidence of a rollout: each device of the open wave and of those before it in one account.

    cut = offered + in_trial + healthy + failed + refused + reverted + offline + deferred
        + not_begun

as long as no device that reported has left the fleet's selection since (it stays counted).
"""

from dataclasses import dataclass, field, replace

import numpy as np

from edgefleet.protocol.metrics import SILENCE
from edgefleet.protocol.rollout import Evidence
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows, RowSelection, taken
from edgefleet.rollout.fleet.fleet import NOTHING, Fleet
from edgefleet.rollout.fleet.reports import IDLE_CODE, STAGED_CODE, TRIAL_CODE

SILENT = SILENCE.reason  # the reason under which silence after activating is counted


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


def _nobody() -> RowSelection:
    return RowSelection.of(_no_rows())


@dataclass(frozen=True, slots=True)
class Census:
    """The evidence, and which rows are in the accounts that somebody waits for."""

    evidence: Evidence = field(default_factory=Evidence)
    offered: RowSelection = field(default_factory=_nobody)
    in_trial: RowSelection = field(default_factory=_nobody)
    silent: RowSelection = field(default_factory=_nobody)
    offline: RowSelection = field(default_factory=_nobody)
    deferred: RowSelection = field(default_factory=_nobody)


@dataclass(frozen=True, slots=True)
class PendingReverts:
    """Devices that still run what was taken back, and have something to go back to."""

    online: Rows = field(default_factory=_no_rows)
    offline: Rows = field(default_factory=_no_rows)
    stranded: int = 0  # run it, but there is no earlier release for them


def take_census(
    active: ActiveRollout,
    fleet: Fleet,
    desired: Desired,
    now: float,
    *,
    quarantined: Rows | None = None,
) -> Census:
    """Count the open wave. A few passes over the wave's rows, none over the rest of the fleet.

    ``quarantined`` are rows (ascending) that are offered nothing new, whatever the release.
    """
    wave = active.state.open_wave
    if wave is None:
        return Census()
    rows = active.members()
    if len(desired.of_release(active.release.number)) > 1:
        own = active.ledger.standings(rows)
        rows = rows[(own != DeviceStanding.NONE) | ~desired.excluded(rows, active)]
    if quarantined is not None and len(quarantined):
        own = active.ledger.standings(rows)
        rows = rows[(own != DeviceStanding.NONE) | ~np.isin(rows, quarantined, assume_unique=True)]
    unheard = active.ledger.standings(rows) == DeviceStanding.NONE
    already = taken(fleet.running_ids, rows) == active.release.number
    already &= unheard
    if already.any():
        already[already] = fleet.phases[rows[already]] == IDLE_CODE
        unheard &= ~already
    away = fleet.silent_longer(rows, now, fleet.offline_after_s)
    away &= unheard
    unheard &= ~away
    trial = active.ledger.rows(DeviceStanding.TRIAL)
    silent = fleet.silent_longer(trial, now, active.state.spec.gate.silence_s)
    found = Census(
        offered=RowSelection(rows, unheard),
        in_trial=RowSelection(trial, ~silent),
        silent=RowSelection(trial, silent),
        offline=RowSelection(rows, away),
        deferred=RowSelection.of(active.ledger.rows(DeviceStanding.DEFERRED)),
    )
    told = int(np.count_nonzero(already))
    return replace(found, evidence=_evidence(active, found, len(rows), told))


def call_overdue(active: ActiveRollout, fleet: Fleet, census: Census, now: float) -> None:
    """Let growth know who should have been heard by now and was not."""
    spec = active.state.spec.gate
    within_s = min(fleet.offline_after_s, spec.silence_s)
    overdue = np.count_nonzero(fleet.unheard(census.in_trial.all(), now - within_s))
    active.overdue.call(
        spec,
        missing=census.silent.count + int(overdue),
        began=active.ledger.exposed,
        now=now,
        within_s=within_s,
    )


def _evidence(active: ActiveRollout, found: Census, cut: int, already: int) -> Evidence:
    ledger, counts = active.ledger, active.ledger.counts
    seen = Evidence(
        wave=1 if active.state.wave is None else active.state.wave + 1,
        cut=cut,
        offered=found.offered.count,
        in_trial=found.in_trial.count,
        healthy=counts[DeviceStanding.HEALTHY] + already,
        failed=counts[DeviceStanding.FAILED] + found.silent.count,
        refused=counts[DeviceStanding.REFUSED],
        silent=found.silent.count,
        reverted=counts[DeviceStanding.REVERTED],
        offline=found.offline.count,
        deferred=found.deferred.count,
        exposed=ledger.exposed,
        reasons=_reasons(active, found.silent.count),
        canary=active.cohorts.canary.cohort(),
        control=active.cohorts.control.cohort(),
        quality=active.cohorts.differences(),
        limits=active.cohorts.limits(),
    )
    return gate.weigh(seen, active.state.spec.gate)


def closed_evidence(active: ActiveRollout, fleet: Fleet, now: float) -> Evidence:
    """The accounts of a rollout that exposes nobody any more, from its counts: no pass over rows.

    Only devices left in trial are looked at, as they may have gone silent. Whoever never said
    anything has not begun, newcomers since count in the cut, and the cohorts are those of the last
    verdict.
    """
    wave = active.state.open_wave
    if wave is None:
        return Evidence()
    ledger = active.ledger
    count = {standing: ledger.count(standing) for standing in DeviceStanding if standing}
    judged = Evidence() if wave.judgement is None else wave.judgement.evidence
    cut = max(wave.cut or 0, sum(count.values()))
    silent = _silent(active, fleet, now) if count[DeviceStanding.TRIAL] else 0
    seen = Evidence(
        wave=judged.wave,
        cut=cut,
        in_trial=count[DeviceStanding.TRIAL] - silent,
        healthy=count[DeviceStanding.HEALTHY],
        failed=count[DeviceStanding.FAILED] + silent,
        silent=silent,
        refused=count[DeviceStanding.REFUSED],
        reverted=count[DeviceStanding.REVERTED],
        deferred=count[DeviceStanding.DEFERRED],
        not_begun=cut - sum(count.values()),
        exposed=ledger.exposed,
        reasons=_reasons(active, silent),
        canary=judged.canary,
        control=judged.control,
        quality=judged.quality,
        limits=judged.limits,
    )
    return gate.weigh(seen, active.state.spec.gate)


def _silent(active: ActiveRollout, fleet: Fleet, now: float) -> int:
    trial = active.ledger.rows(DeviceStanding.TRIAL)
    silence_s = active.state.spec.gate.silence_s
    return int(np.count_nonzero(fleet.silent_longer(trial, now, silence_s)))


def _reasons(active: ActiveRollout, silent: int) -> dict[str, int]:
    return {**active.ledger.reasons, SILENT: silent} if silent else active.ledger.reasons


def find_owing(active: ActiveRollout, fleet: Fleet, desired: Desired, now: float) -> PendingReverts:
    """Who must still go back: runs the release, or is about to, or took it and said nothing since.

    A device to which another rollout gives this very release keeps it. Newest exposed first.
    """
    number = active.release.number
    owes = fleet.running_ids == number
    if owes.any():
        owes &= active.scope.eligible_mask() | active.ledger.exposed_mask(len(fleet))
    took = active.ledger.rows(DeviceStanding.TRIAL, DeviceStanding.HEALTHY)
    unsaid = fleet.running_ids[took] == NOTHING
    starting = (fleet.phases[took] == TRIAL_CODE) | (fleet.phases[took] == STAGED_CODE)
    owes[took[unsaid | starting]] = True
    owes[list(active.reservations.granted)] = True
    rows = np.flatnonzero(owes)
    back_to = desired.numbers(rows)
    stranded = int(np.count_nonzero(back_to == NOTHING))
    rows = rows[(back_to != number) & (back_to != NOTHING)]
    away = fleet.silent_longer(rows, now, fleet.offline_after_s)
    first = active.ledger.newest_first
    return PendingReverts(online=first(rows[~away]), offline=first(rows[away]), stranded=stranded)
