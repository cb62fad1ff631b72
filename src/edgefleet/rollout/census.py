"""The census of a rollout: each device of the opened waves is in exactly one account.

    cut = offered + in_trial + healthy + failed + refused + set_aside + reverted + offline
        + deferred + not_begun + taken_back

The equation holds unless a device that reported has since left the selection of the fleet; such a
device stays counted.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from edgefleet.protocol.metrics import SILENCE
from edgefleet.protocol.rollout import Boundary, ClassRate, Evidence, LimitCounts, SiteComparison
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence import alphas, class_test, gate, small_fleet
from edgefleet.rollout.evidence.examples import add_examples
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows, RowSelection
from edgefleet.rollout.fleet.device_models import NOTHING
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.reports import IDLE_CODE, STAGED_CODE, TRIAL_CODE
from edgefleet.rollout.lifecycle.typed_replace import replace as replace_struct
from edgefleet.rollout.limits import CLASSES_SHOWN
from edgefleet.rollout.openings import count_remaining, count_spare
from edgefleet.rollout.serving_failed import serving_failed, with_serving_failed
from edgefleet.rollout.wrong_bytes import find_damaged, with_damaged

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
    set_aside: RowSelection = field(default_factory=_no_devices)  # silent, and do not count
    dark: RowSelection = field(default_factory=_no_devices)  # silent, whether or not they count
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
    active.tally.update(fleet.facts_version)
    rows, taken_back = active.members(), 0
    if active.taken:
        taken = active.all_taken_back(rows)
        rows, taken_back = rows[~taken], int(np.count_nonzero(taken))
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
    silent = _silent(active, fleet, now)
    trial = silent.trial
    found = Census(
        offered=RowSelection(rows, unreported),
        queued=_queued(active, fleet, rows, unreported, patient),
        in_trial=RowSelection(trial, ~(silent.counted | silent.set_aside)),
        silent=RowSelection(trial, silent.counted),
        set_aside=RowSelection(trial, silent.set_aside),
        dark=RowSelection(trial, silent.dark),
        offline=RowSelection(rows, away),
        deferred=RowSelection.of(_judged_rows(active, DeviceStanding.DEFERRED)),
    )
    served = int(np.count_nonzero(already))
    evidence = _evidence(active, fleet, found, len(rows), served, taken_back=taken_back, now=now)
    evidence = add_examples(evidence, active.ledger.reasons, found.silent.all(), fleet.name)
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
    evidence = replace_struct(
        evidence, planned=planned, sites=_compare_sites(active, fleet, found.silent.count, now)
    )
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
        boundary=find_boundary(
            active, found.silent.all(), serving_failed(active, fleet, now), damaged=evidence.damaged
        ),
    )


def _compare_sites(active: ActiveRollout, fleet: Fleet, silent: int, now: float) -> SiteComparison:
    """The comparison of dark devices by site. Without a silent device nothing is compared."""
    if not silent:
        return SiteComparison()
    rows = active.scope.eligible_rows()
    return active.sites.compare(active.state.site_bets, fleet, rows, now)


def find_boundary(
    active: ActiveRollout,
    silent: Rows,
    failing: Rows,
    without: Rows | None = None,
    *,
    damaged: int,
) -> Boundary | None:
    """The exact test of a small fleet, ``without`` some devices. None if it is not small.

    ``silent`` devices in trial and healthy devices with ``failing`` serving count as failed.
    ``damaged`` is the number of devices whose downloads are damaged: they count as refused.
    """
    state, spec = active.state, active.state.spec.gate
    if not state.sizes:
        return None
    plans = tuple(small_fleet.Plan(*each) for each in state.sizes)
    alpha = alphas.FAILURES.alpha(spec) + alphas.ENDS.alpha(spec)
    needed = small_fleet.boundary(plans, state.failures_allowed, alpha)

    def are_out(rows: Rows) -> Mask:
        out = active.set_aside.parts.all_have(rows)
        return out if without is None else out | np.isin(rows, without, assume_unique=True)

    failures = active.ledger.failures_in_order(np.concatenate([silent, failing]), are_out)
    refused = active.tally.count(DeviceStanding.REFUSED) + damaged
    near = small_fleet.nearest_crossing([*failures, *[True] * refused], needed)
    return Boundary(devices=plans[-1].devices, bad=near.bad, size=near.size, needed=near.needed)


def update_overdue(active: ActiveRollout, fleet: Fleet, census: Census, now: float) -> None:
    """Update the overdue and silent devices, which the exposure limit depends on."""
    _note_silent(active, census.silent.all(), census.dark.all(), now)
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


def update_lost(active: ActiveRollout, fleet: Fleet, now: float) -> None:
    """Update the silent devices of a completed rollout, for the devices that start later."""
    silent = _silent(active, fleet, now)
    _note_silent(active, silent.rows, silent.trial[silent.dark], now)


def _note_silent(active: ActiveRollout, counted: Rows, dark: Rows, now: float) -> None:
    """``counted`` are the devices of ``dark`` that count as failed. Both ascend."""
    active.late.update(counted)
    active.dark = dark
    active.tally.set_lost(active.ledger.lost(dark, now))


def _evidence(
    active: ActiveRollout,
    fleet: Fleet,
    found: Census,
    judged: int,
    already: int,
    *,
    taken_back: int,
    now: float,
) -> Evidence:
    counts, excused = active.tally, len(active.set_aside.failed)
    silent, failing = found.silent.all(), serving_failed(active, fleet, now)
    damaged = find_damaged(active, fleet)
    reasons = _reasons(active, len(silent))
    counted = Evidence(
        wave=1 if active.state.wave is None else active.state.wave + 1,
        cut=judged + taken_back,
        offered=found.offered.count,
        in_trial=found.in_trial.count,
        healthy=counts.count(DeviceStanding.HEALTHY) + already,
        failed=counts.count(DeviceStanding.FAILED) - excused + len(silent),
        refused=counts.count(DeviceStanding.REFUSED),
        silent=len(silent),
        set_aside=excused + found.set_aside.count,
        reverted=counts.count(DeviceStanding.REVERTED),
        offline=found.offline.count,
        deferred=found.deferred.count,
        taken_back=taken_back,
        exposed=active.ledger.exposed,
        reasons=reasons,
        history=active.state.history,
        canary=active.cohorts.canary.cohort(),
        control=active.cohorts.control.cohort(),
        late=active.late.failures(silent),
        classes=_classes(active, np.concatenate([silent, failing]), damaged.rows),
        class_count=len(active.state.classes),
        quality=active.cohorts.differences(),
        limits=active.cohorts.limits(has_previous=active.state.previous is not None),
        labels=active.cohorts.labels.evidence(),
    )
    counted = with_damaged(with_serving_failed(counted, fleet, failing), fleet, damaged)
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
    active.tally.update(fleet.facts_version)
    taken_back = sum(active.tally.out[1:])
    count = {standing: active.tally.count(standing) for standing in DeviceStanding if standing}
    judged = Evidence() if wave.judgement is None else wave.judgement.evidence
    left = (wave.cut or 0) - active.gone(active.state.wave or 0)
    cut = max(left, sum(count.values()) + taken_back)
    dark, excused = _silent(active, fleet, now), len(active.set_aside.failed)
    silent, aside = (int(np.count_nonzero(one)) for one in (dark.counted, dark.set_aside))
    reasons = _reasons(active, silent)
    counted = Evidence(
        wave=judged.wave,
        cut=cut,
        in_trial=count[DeviceStanding.TRIAL] - silent - aside,
        healthy=count[DeviceStanding.HEALTHY],
        failed=count[DeviceStanding.FAILED] - excused + silent,
        silent=silent,
        set_aside=excused + aside,
        refused=count[DeviceStanding.REFUSED],
        reverted=count[DeviceStanding.REVERTED],
        deferred=count[DeviceStanding.DEFERRED],
        not_begun=cut - sum(count.values()) - taken_back,
        taken_back=taken_back,
        exposed=active.ledger.exposed,
        reasons=reasons,
        history=active.state.history,
        canary=judged.canary,
        control=judged.control,
        late=judged.late,
        sites=judged.sites,
        one_site=judged.one_site,
        classes=judged.classes,
        class_count=judged.class_count,
        quality=judged.quality,
        limits=judged.limits,
        labels=active.cohorts.labels.evidence(),
    )
    counted = with_serving_failed(counted, fleet, serving_failed(active, fleet, now))
    counted = with_damaged(counted, fleet, find_damaged(active, fleet))
    evidence = gate.weigh(counted, active.state.spec.gate)
    return add_examples(evidence, active.ledger.reasons, dark.rows, fleet.name)


def bake_evidence(active: ActiveRollout, fleet: Fleet, now: float) -> tuple[Evidence, Rows]:
    """``closed_evidence`` with all that the gate tests in the bake, and the silent devices in it.

    The absolute limits are left to the windows of the bake, which tell a release from a backend
    that is down for everybody.
    """
    silent, failing = _silent(active, fleet, now).rows, serving_failed(active, fleet, now)
    damaged = find_damaged(active, fleet).rows
    evidence = replace_struct(
        closed_evidence(active, fleet, now),
        late=active.late.failures(silent),
        classes=_classes(active, np.concatenate([silent, failing]), damaged),
        class_count=len(active.state.classes),
        quality=active.cohorts.differences(),
        sites=_compare_sites(active, fleet, len(silent), now),
        limits=LimitCounts(),
        looks=active.state.looks,
        looked=active.state.looked,
        boundary=find_boundary(active, silent, failing, damaged=len(damaged)),
    )
    return evidence, silent


@dataclass(frozen=True, slots=True)
class Silent:
    """The devices in ``trial``, ascending, and which of them are silent."""

    trial: Rows
    dark: Mask  # silent, whether or not they count
    counted: Mask  # silent, as failures
    set_aside: Mask  # silent, and do not count

    @property
    def rows(self) -> Rows:
        """The silent devices that count, ascending."""
        return self.trial[self.counted]


def _silent(active: ActiveRollout, fleet: Fleet, now: float) -> Silent:
    """The devices in trial that are silent. Those that are still compared count as in trial."""
    trial = _judged_rows(active, DeviceStanding.TRIAL)
    dark = fleet.silent_longer(trial, now, active.state.spec.gate.silence_s)
    silent, out = dark.copy(), np.zeros(len(trial), np.bool_)
    if silent.any():
        out[silent] = active.set_aside.disturbed.all_have(trial[silent])
        silent[silent] = ~active.sites.are_open(trial[silent], fleet)
    return Silent(trial, dark, counted=silent & ~out, set_aside=out)


def _reasons(active: ActiveRollout, silent: int) -> dict[str, int]:
    found = active.ledger.reasons.counts(active.taken.has if active.taken else None)
    return {**found, SILENT: silent} if silent else found


def _judged_rows(active: ActiveRollout, standing: DeviceStanding) -> Rows:
    """The devices with this standing that the tests count, ascending."""
    rows = active.ledger.rows(standing)
    return rows[~active.all_taken_back(rows)] if active.taken else rows


def _classes(active: ActiveRollout, silent: Rows, damaged: Rows) -> tuple[ClassRate, ...]:
    """The classes with the strongest evidence. ``silent`` devices count as failed.

    ``damaged`` devices, which have not begun, count as refused.
    """
    counted = active.tally.classes_begun(silent, active.set_aside.failed, damaged)
    return class_test.worst_of(counted, active.state.failures_allowed, CLASSES_SHOWN)


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
