"""The census of a rollout: each device of the opened waves is in exactly one account.

    cut = offered + in_trial + healthy + failed + refused + reverted + offline + deferred
        + not_begun

The equation holds unless a device that reported has since left the selection of the fleet; such a
device stays counted.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from edgefleet.protocol.metrics import SILENCE
from edgefleet.protocol.rollout import Boundary, Evidence, LimitCounts
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence import alphas, gate, small_fleet
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows, RowSelection
from edgefleet.rollout.fleet.device_models import NOTHING
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.reports import IDLE_CODE, STAGED_CODE, TRIAL_CODE
from edgefleet.rollout.lifecycle.typed_replace import replace as replace_struct
from edgefleet.rollout.openings import count_remaining, count_spare

SILENT = SILENCE.reason  # the reason code for devices that are silent after activating


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


def _no_devices() -> RowSelection:
    return RowSelection.of(_no_rows())


@dataclass(frozen=True, slots=True)
class Census:
    """The evidence, and the rows in each account that the rollout waits for."""

    evidence: Evidence = field(default_factory=Evidence)
    offered: RowSelection = field(default_factory=_no_devices)
    queued: RowSelection = field(
        default_factory=_no_devices
    )  # of ``offered``: other trials block them
    in_trial: RowSelection = field(default_factory=_no_devices)
    silent: RowSelection = field(default_factory=_no_devices)
    offline: RowSelection = field(default_factory=_no_devices)
    deferred: RowSelection = field(default_factory=_no_devices)

    @property
    def stragglers(self) -> RowSelection:
        """The offered devices that are not queued."""
        if not len(self.queued):
            return self.offered
        return self.offered.only(~np.isin(self.offered.all(), self.queued.all()))


@dataclass(frozen=True, slots=True)
class PendingReverts:
    """Devices that still run the release of a reverting rollout, and have an earlier release."""

    online: Rows = field(default_factory=_no_rows)
    offline: Rows = field(default_factory=_no_rows)
    stranded: int = 0  # devices that run the release and have no earlier one
    kept: int = 0  # devices that run the release because another rollout gives it to them


def count_census(
    active: ActiveRollout,
    fleet: Fleet,
    desired: Desired,
    now: float,
    *,
    out: Rows | None = None,
    patient: Rows | None = None,
) -> Census:
    """Count the open wave. The cost is a few passes over the rows of the wave.

    ``out``: ascending rows of devices that are blocked until a person acts. They count only if they
    have reported. ``patient``: ascending rows of devices that are blocked and become no stragglers
    meanwhile. They are queued once they have downloaded and proved the release.
    """
    wave = active.state.open_wave
    if wave is None:
        return Census()
    rows = active.members()
    if len(desired.of_release(active.release.number)) > 1:
        own = active.ledger.standings(rows)
        rows = rows[(own != DeviceStanding.NONE) | ~desired.excluded(rows, active)]
    if out is not None and len(out):
        own = active.ledger.standings(rows)
        rows = rows[(own != DeviceStanding.NONE) | ~np.isin(rows, out, assume_unique=True)]
    unreported = active.ledger.standings(rows) == DeviceStanding.NONE
    already = fleet.models.all_run(rows, active.release.number)
    already &= unreported
    if already.any():
        already[already] = fleet.models.all_phases(rows[already], active.model) == IDLE_CODE
        unreported &= ~already
    away = fleet.silent_longer(rows, now, fleet.offline_after_s)
    away &= unreported
    unreported &= ~away
    trial = active.ledger.rows(DeviceStanding.TRIAL)
    silent = fleet.silent_longer(trial, now, active.state.spec.gate.silence_s)
    found = Census(
        offered=RowSelection(rows, unreported),
        queued=_queued(active, fleet, rows, unreported, patient),
        in_trial=RowSelection(trial, ~silent),
        silent=RowSelection(trial, silent),
        offline=RowSelection(rows, away),
        deferred=RowSelection.of(active.ledger.rows(DeviceStanding.DEFERRED)),
    )
    served = int(np.count_nonzero(already))
    evidence = _evidence(active, found, len(rows), served)
    return replace(found, evidence=_with_plan(active, fleet, found, evidence, now))


def _queued(
    active: ActiveRollout, fleet: Fleet, rows: Rows, offered: Mask, patient: Rows | None
) -> RowSelection:
    if patient is None or not len(patient):
        return _no_devices()
    rows = np.intersect1d(rows[offered], patient, assume_unique=True)
    return RowSelection(rows, fleet.models.all_phases(rows, active.model) == STAGED_CODE)


def _with_plan(
    active: ActiveRollout, fleet: Fleet, found: Census, evidence: Evidence, now: float
) -> Evidence:
    """The evidence with its fields about the plan: more devices, earlier looks, the boundary."""
    state = active.state
    wave, spec = state.open_wave, state.spec
    population = active.scope.counts("")[0]
    is_patient = now < active.reservations.patience_from(state, now) + spec.gate.patience_s
    planned = 0 if wave is None or wave.planned is None else wave.planned
    evidence = replace_struct(evidence, planned=planned)
    is_short = not is_patient and gate.count_missing(evidence, spec.gate) > 0
    return replace_struct(
        evidence,
        planned=planned,
        spare=count_spare(active, fleet, now) if is_short else 0,
        remaining=count_remaining(active),
        needs_approval=spec.approval.each_wave and spec.approval.people > 0,
        handful=0
        if wave is None or not wave.by_handfuls
        else exposure.handful(spec.exposure, population),
        looks=state.looks,
        looked=state.looked,
        boundary=_boundary(active, found.silent.all()),
    )


def _boundary(active: ActiveRollout, silent: Rows) -> Boundary | None:
    """The exact test of a small fleet. None if the fleet is not small."""
    state, spec = active.state, active.state.spec.gate
    if not state.sizes:
        return None
    plans = tuple(small_fleet.Plan(*each) for each in state.sizes)
    alpha = alphas.FAILURES.alpha(spec) + alphas.ENDS.alpha(spec)
    needed = small_fleet.boundary(plans, state.failures_allowed, alpha)
    failures = active.ledger.failures_in_order(silent)
    refused = active.ledger.count(DeviceStanding.REFUSED)
    near = small_fleet.nearest_crossing([*failures, *[True] * refused], needed)
    return Boundary(devices=plans[-1].devices, bad=near.bad, size=near.size, needed=near.needed)


def update_overdue(active: ActiveRollout, fleet: Fleet, census: Census, now: float) -> None:
    """Update the overdue and silent devices, which the exposure limit depends on."""
    active.late.update(census.silent.all())
    spec = active.state.spec.gate
    within_s = min(fleet.offline_after_s, spec.silence_s)
    overdue = np.count_nonzero(fleet.silent_since(census.in_trial.all(), now - within_s))
    active.overdue.update(
        spec,
        missing=census.silent.count + int(overdue),
        began=active.ledger.exposed,
        now=now,
        within_s=within_s,
    )


def _evidence(active: ActiveRollout, found: Census, cut: int, already: int) -> Evidence:
    ledger, counts = active.ledger, active.ledger.counts
    counted = Evidence(
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
        history=active.state.history,
        canary=active.cohorts.canary.cohort(),
        control=active.cohorts.control.cohort(),
        late=active.late.failures(found.silent.all()),
        quality=active.cohorts.differences(),
        limits=active.cohorts.limits(has_previous=active.state.previous is not None),
    )
    return gate.weigh(counted, active.state.spec.gate)


def closed_evidence(active: ActiveRollout, fleet: Fleet, now: float) -> Evidence:
    """The accounts of a rollout that exposes no more devices, without a pass over its rows.

    Only devices in trial are read, because they may have gone silent. A device without a report
    counts as not begun. Devices that enrolled since count in the cut. The cohorts are those of the
    last verdict.
    """
    wave = active.state.open_wave
    if wave is None:
        return Evidence()
    ledger = active.ledger
    count = {standing: ledger.count(standing) for standing in DeviceStanding if standing}
    judged = Evidence() if wave.judgement is None else wave.judgement.evidence
    cut = max(wave.cut or 0, sum(count.values()))
    silent = len(_silent(active, fleet, now))
    counted = Evidence(
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
        history=active.state.history,
        canary=judged.canary,
        control=judged.control,
        late=judged.late,
        quality=judged.quality,
        limits=judged.limits,
    )
    return gate.weigh(counted, active.state.spec.gate)


def bake_evidence(active: ActiveRollout, fleet: Fleet, now: float) -> Evidence:
    """``closed_evidence`` with all that the gate tests in the bake.

    The absolute limits are left to the windows of the bake, which tell a release from a backend
    that is down for everybody.
    """
    silent = _silent(active, fleet, now)
    return replace_struct(
        closed_evidence(active, fleet, now),
        late=active.late.failures(silent),
        quality=active.cohorts.differences(),
        limits=LimitCounts(),
        looks=active.state.looks,
        looked=active.state.looked,
        boundary=_boundary(active, silent),
    )


def _silent(active: ActiveRollout, fleet: Fleet, now: float) -> Rows:
    """The devices in trial that are silent, ascending."""
    if not active.ledger.count(DeviceStanding.TRIAL):
        return _no_rows()
    trial = active.ledger.rows(DeviceStanding.TRIAL)
    return trial[fleet.silent_longer(trial, now, active.state.spec.gate.silence_s)]


def _reasons(active: ActiveRollout, silent: int) -> dict[str, int]:
    return {**active.ledger.reasons, SILENT: silent} if silent else active.ledger.reasons


def find_owing(active: ActiveRollout, fleet: Fleet, desired: Desired, now: float) -> PendingReverts:
    """The devices that must still revert, last exposed first.

    A device must revert if it runs the release, is about to start it, or activated it and has not
    reported since. A device keeps the release if another rollout gives it the same one.
    """
    number = active.release.number
    owes = fleet.models.all_run(np.arange(len(fleet)), number)
    if owes.any():
        owes &= active.scope.eligible_mask() | active.ledger.exposed_mask(len(fleet))
    activated = active.ledger.rows(DeviceStanding.TRIAL, DeviceStanding.HEALTHY)
    unreported = fleet.models.all_releases(activated, active.model) == NOTHING
    phases = fleet.models.all_phases(activated, active.model)
    starting = (phases == TRIAL_CODE) | (phases == STAGED_CODE)
    owes[activated[unreported | starting]] = True
    rows = np.flatnonzero(owes)
    back_to = desired.numbers(rows, active.model)
    stranded = int(np.count_nonzero(back_to == NOTHING))
    kept = int(np.count_nonzero((back_to == number) & fleet.models.all_run(rows, number)))
    rows = rows[(back_to != number) & (back_to != NOTHING)]
    away = fleet.silent_longer(rows, now, fleet.offline_after_s)
    first = active.ledger.newest_first
    return PendingReverts(
        online=first(rows[~away]), offline=first(rows[away]), stranded=stranded, kept=kept
    )
