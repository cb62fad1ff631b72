"""The engine: the interface of ``rollout`` to a shell (the hub, the simulator, a dry run).

Devices are answered by ``admission`` and counted by ``intake``, in the order of ``checkin``;
``batch`` does the same for many devices at once.

Nothing here is durable. The shell stores each ``Change.state`` before it calls ``commit``, and each
outcome before it is recorded. At start-up it loads the states and records the outcomes again,
in any order, which restores the engine. Changes of one rollout must not overlap: from ``command``
or ``evaluate`` to ``commit`` no other change of that rollout may be made.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.comparisons import comparison_name
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.interface import changes_from
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Freeze, RolloutSpec, RolloutView, Status, Verb
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout import bake, plan
from edgefleet.rollout.active import ActiveRollout, PublishedRelease, course_of
from edgefleet.rollout.admission.control import Admission, allowed
from edgefleet.rollout.admission.downloads import open_candidates, renew_candidates
from edgefleet.rollout.batch import Batch
from edgefleet.rollout.census import Census, find_owing, update_lost, update_overdue
from edgefleet.rollout.constraints import approval
from edgefleet.rollout.constraints.ahead import Ahead
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.reservations import Reservations
from edgefleet.rollout.constraints.window import Offset, check_windows, utc_only
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.earlier import find_earlier
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.finished import Finished
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.device_classes import check_classes, classes_of
from edgefleet.rollout.fleet.eligibility import limits_of, variants_of
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.memory_fit import MemoryFit, Room, Tenant
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.fleet.selector import parse
from edgefleet.rollout.intake import Intake
from edgefleet.rollout.lifecycle import event as events
from edgefleet.rollout.lifecycle import step as steps
from edgefleet.rollout.lifecycle.event import Event
from edgefleet.rollout.lifecycle.state import EXCLUSIVE, JUDGED, OPEN, WITHDRAWN, RolloutState
from edgefleet.rollout.lifecycle.step import AuditLine, step
from edgefleet.rollout.next_transition import NextTransition, bets_to_store
from edgefleet.rollout.restored import note_all_given, note_given
from edgefleet.rollout.running_today import count_today
from edgefleet.rollout.why import device as device_why
from edgefleet.rollout.why.status import RolloutStatus


@dataclass(frozen=True, slots=True)
class Change:
    """The next state of a rollout, to be made durable and then committed, with its audit lines."""

    state: RolloutState
    audit: tuple[AuditLine, ...] = ()


class Engine:
    """All rollouts over one fleet. ``now`` is when this process begins to listen to devices."""

    def __init__(
        self,
        *,
        now: float,
        offline_after_s: float = 180.0,
        gate: Gate = judge,
        utc_offset_s: Offset = utc_only,
    ) -> None:
        self.fleet = Fleet(listening_since=now, offline_after_s=offline_after_s)
        self._releases: dict[tuple[str, str], PublishedRelease] = {}
        self._rollouts: dict[str, ActiveRollout] = {}
        self._stirred: set[str] = set()  # all that ``evaluate`` may be due for, by id
        self._offset = utc_offset_s
        self._desired = Desired(self.fleet)
        self._fleet_wide = FleetConstraints(self.fleet)
        self._memory_fit = MemoryFit(self.fleet, self._tenants)
        self.admission = Admission(self.fleet, self._rollouts, self._desired, self._fleet_wide)
        self.intake = Intake(self.fleet, self._rollouts, self._fleet_wide, self._stirred)
        self.batch = Batch(self.fleet, self._rollouts, self._desired, self.admission, self.intake)
        self.finished = Finished(
            self.fleet,
            self._rollouts,
            self._fleet_wide.quarantine,
            self._stirred,
            self.evaluated_rollouts,
        )
        self._status = RolloutStatus(self.fleet, self._desired, self._fleet_wide, gate)
        self._next_transition = NextTransition(self.fleet, self._desired)

    # Releases and rollouts.

    def add_release(self, manifest: ReleaseManifest, manifest_sha256: str) -> None:
        """Make a release known, before the rollouts that use it are loaded."""
        key = (manifest.model, manifest.release)
        number = self.fleet.models.release_id(*key)
        self.fleet.models.forget_digests()
        self.fleet.facts_version += 1  # an agent with one model may run another one
        self._releases[key] = PublishedRelease(
            manifest, manifest_sha256, number, limits_of(manifest)
        )
        self._fleet_wide.memory.add_release(number, limits_of(manifest))

    def load(self, state: RolloutState) -> None:
        """Add a rollout that was just planned."""
        self.load_all((state,))

    def load_all(self, states: Iterable[RolloutState]) -> None:
        """Add rollouts from the store, oldest first. The indexes are updated once."""
        loaded = [self._load(state) for state in states]
        self._arrange()
        for active in loaded:
            open_candidates(
                active,
                self.fleet,
                allowed(active, active.state.created_at),
                self._fleet_wide.budgets,
            )

    def _load(self, state: RolloutState) -> ActiveRollout:
        release = self._published(state.spec.model, state.spec.release)
        scope = self._scope(state.spec, release, state.salt, state.id)
        self._fleet_wide.memory.add_rollout(state.id, release.number)
        reservations = Reservations(state.id, state.spec, self._fleet_wide, self._offset)
        ledger = Ledger(len(state.waves), course_of(state))
        active = ActiveRollout(state, release, scope, ledger, reservations)
        if state.status in OPEN or state.is_baking:
            is_started = state.started_at is not None
            active.cohorts.resume(
                state.bets, state.limit_pairs, state.spec.gate, is_started=is_started
            )
        self._rollouts[state.id] = active
        self._stirred.add(state.id)
        return active

    def states(self) -> tuple[RolloutState, ...]:
        """Every rollout, newest first."""
        return tuple(active.state for active in self._newest_first())

    def open_rollouts(self) -> tuple[str, ...]:
        """Ids of the rollouts that have not ended, newest first."""
        return tuple(state.id for state in self.states() if state.status in OPEN)

    def evaluated_rollouts(self) -> tuple[str, ...]:
        """Ids of the rollouts that ``evaluate`` is due for, newest first.

        They are open, or watched, or a device is in trial after the last wave. The cost does not
        depend on the number of other rollouts: only a change or a report brings one back.
        """
        self.fleet.check_moves(self._have_strayed)
        stirred = [self._rollouts[rollout] for rollout in self._stirred]
        evaluated = sorted(filter(_is_evaluated, stirred), key=_age, reverse=True)
        due = tuple(active.state.id for active in evaluated)
        self.finished.ended(tuple(self._stirred.difference(due)))
        self._stirred.intersection_update(due)
        return due

    # Changes of rollouts.

    def plan(self, spec: RolloutSpec, *, rollout_id: str, salt: int, now: float) -> RolloutState:
        """Check a rollout and return its first state. Changes nothing.

        ``salt`` is 64 random bits. Raises OperatorError: ``not_found``, ``waves_invalid``,
        ``percent_out_of_range``, ``percent_not_rising``, ``gate_invalid``, ``selector_invalid``,
        ``selector_key_unknown``, ``fleet_empty``, ``variant_missing``, ``agent_one_model``,
        ``memory_full``, ``release_failed_before``, ``again_not_needed``, ``rollout_overlap``,
        ``release_current`` or ``interface_changed``.
        """
        release = self._published(spec.model, spec.release)
        plan.check_waves(spec.waves, self.fleet)
        plan.check_gate(spec.gate)
        plan.check_knobs(spec, self.fleet)
        check_windows(spec.windows, self._offset, now)
        plan.check_selector(spec.selector, self.fleet)
        scope = self._scope(spec, release, salt)
        plan.check_fleet(scope, self.fleet, spec)
        check_classes(spec.gate.classes, scope, self.fleet)
        plan.check_not_failed_before(scope, spec, self._desired.of_release(release.number))
        plan.check_free(scope, spec.model, self._rollouts.values(), EXCLUSIVE)
        plan.check_new(scope, release, self._desired)
        interface = self._interface_changes(scope, release.manifest)
        plan.check_interface(spec, interface)
        previous = plan.previous_release(scope, self.fleet, self._desired, spec.model)
        created_at = plan.after_all(self._rollouts.values(), now)
        rows, blocked = scope.eligible_rows(), self.waiting_for_a_person(spec.model)
        running = count_today(self.fleet, rows, blocked, spec.model, spec.release)
        return plan.planned(
            spec,
            rollout_id=rollout_id,
            salt=salt,
            previous=previous,
            running=running,
            classes=classes_of(scope, self.fleet, spec.gate.classes),
            interface=interface,
            earlier=find_earlier(spec, self._newest_first(), scope.eligible_rows(), previous),
            now=created_at,
        )

    def interface_changes(self, manifest: ReleaseManifest) -> tuple[str, ...]:
        """The changes of a release that clients of any device notice. It may be unpublished."""
        release = PublishedRelease(manifest, "", 0, limits_of(manifest))
        spec = RolloutSpec(model=manifest.model, release=manifest.release)
        return self._interface_changes(self._scope(spec, release, salt=0), manifest)

    def waiting_for_a_person(self, model: str) -> dict[str, Rows]:
        """The devices that get no release of the model until a person acts, by wait code."""
        return self._fleet_wide.for_a_person_by_code(model)

    def without_room(self, spec: RolloutSpec) -> Rows:
        """The devices of a plan whose other models leave too little memory, ascending.

        Raises OperatorError ``not_found``.
        """
        release = self._published(spec.model, spec.release)
        return self._scope(spec, release, salt=0).without_room()

    def command(
        self, rollout_id: str, verb: Verb, *, now: float, generation: int | None = None
    ) -> Change:
        """The change that an operator's verb makes. Nothing changes until it is committed.

        Raises OperatorError ``not_found``; ``verb_not_now`` if the status does not allow the verb
        or the rollout left ``generation``; ``rollout_overlap`` if another has its devices.
        """
        active = self.rollout(rollout_id)
        if generation is not None and generation != active.state.generation:
            raise OperatorError(
                "verb_not_now",
                f"Rollout {rollout_id} moved on: it is {active.state.status} in generation "
                f"{active.state.generation}, not {generation}.",
                field="generation",
                hint=f"Run `edgefleet rollout show {rollout_id}`, then repeat the command.",
            )
        return self._change(active, self._event(active, verb, now), now)

    def approve(self, rollout_id: str, person: str, *, now: float) -> Change:
        """The change that a person's approval makes. Nothing changes until it is committed.

        Raises OperatorError ``not_found``, ``verb_not_now``, ``approved_already`` or
        ``approves_own_plan``.
        """
        active = self.rollout(rollout_id)
        approval.check_person(active.state, person)
        given = approval.approval(active.state, person, now)
        return self._change(active, events.Approved(approval=given), now)

    def evaluate(self, rollout_id: str, now: float) -> Change | None:
        """The change due now: by the gate, the schedule or a finished revert. None if none is."""
        active = self.rollout(rollout_id)
        if active.state.status is Status.REVERTING:
            owing = find_owing(active, self.fleet, self._desired, now)
            if len(owing.online) and now < steps.returned_by(active.state):
                return None
            completed = events.RevertCompleted(
                left=len(owing.online), stranded=owing.stranded, kept=owing.kept
            )
            return self._change(active, completed, now)
        if active.state.status is Status.PLANNED:
            return self._start_by_time(active, now)
        if active.state.status not in OPEN:
            return self._bake(active, now)
        compared = self._compare_sites(active, now)
        if compared is not None:
            return compared
        census = self._status.census(active, now)
        if len(census.queued):
            active.reservations.note_progress(now)
        judgement = self._status.judge(active, census, now)
        event = None if judgement is None else self._next_transition.by_gate(active, judgement)
        if event is None or isinstance(event, events.WaitReasonChanged):
            self._admit_more(active, census, now)
        event = event or bets_to_store(active, now)
        return None if event is None else self._change(active, event, now)

    def _bake(self, active: ActiveRollout, now: float) -> Change | None:
        """The change due after the last wave: see ``bake``."""
        compared = self._compare_sites(active, now)
        if compared is not None:
            return compared
        update_lost(active, self.fleet, now)
        evidence, judgement = self._status.judge_bake(active, now)
        seen = bake.Observed(
            evidence=evidence,
            judgement=judgement,
            others=self._rollouts.values(),
            check_in_s=self.fleet.offline_after_s / 3,
            now=now,
        )
        event = bake.next_event(active, seen)
        event = event or bets_to_store(active, now)
        return None if event is None else self._change(active, event, now)

    def _compare_sites(self, active: ActiveRollout, now: float) -> Change | None:
        """The change by groups of devices that went dark at one time. None if none is closed."""
        is_judged = active.state.status in JUDGED or active.state.is_baking
        if not is_judged or not active.ledger.count(DeviceStanding.TRIAL):
            active.sites.clear()
            return None
        rows = active.scope.eligible_rows()
        if active.taken:
            rows = rows[~active.all_taken_back(rows)]
        closed = active.sites.observe(active.state.site_bets, self.fleet, rows, now)
        if closed is None:
            return None
        bets, outages = closed
        return self._change(active, events.SitesCompared(bets=bets, outages=outages), now)

    def _admit_more(self, active: ActiveRollout, census: Census, now: float) -> None:
        """Ask for as many candidates as may start soon."""
        update_overdue(active, self.fleet, census, now)
        if self.admission.shut_to_all(active, census.offered, now):
            active.candidates.pause(now)
        else:
            renew_candidates(
                active,
                self.fleet,
                census.offered,
                allowed=allowed(active, now),
                budgets=self._fleet_wide.budgets,
                now=now,
            )

    def commit(self, change: Change) -> None:
        """Replace the state of a rollout by its successor, which is durable now."""
        active = self.rollout(change.state.id)
        if change.state.revision != active.state.revision + 1:
            msg = (
                f"{change.state.id}: revision {change.state.revision} after {active.state.revision}"
            )
            raise AssertionError(msg)
        active.become(change.state)
        self._stirred.add(change.state.id)
        if change.state.status in JUDGED:
            limit = allowed(active, change.state.since)
            open_candidates(active, self.fleet, limit, self._fleet_wide.budgets)
        elif change.state.status not in OPEN and not change.state.is_baking:
            active.cohorts = Cohorts()
        self._arrange()

    # Fleet-wide constraints.

    @property
    def ahead(self) -> Ahead:
        """The devices that run what the hub has no record of."""
        return self._fleet_wide.ahead

    def has_rollout(self, rollout_id: str) -> bool:
        """True if the engine knows the rollout."""
        return rollout_id in self._rollouts

    def note_given(self, row: int, check_in: CheckIn) -> None:
        """Compare reported models with the records. See ``restored``."""
        note_given(row, check_in, self.ahead, self._rollouts)

    def note_all_given(self, rows: Rows, check_in: CheckIn) -> None:
        """``note_given`` for many devices."""
        note_all_given(rows, check_in, self.ahead, self._rollouts)

    @property
    def freeze(self) -> Freeze:
        """The freeze of the fleet: no device begins anything while it is frozen."""
        return self._fleet_wide.freeze

    def set_freeze(self, freeze: Freeze) -> None:
        """Set a freeze that is durable."""
        self._fleet_wide.freeze = freeze

    def quarantined_models(self, row: int) -> tuple[str, ...]:
        """The models of which two different releases failed on the device."""
        quarantine = self._fleet_wide.quarantine
        models = quarantine.models()
        return tuple(model for model in models if quarantine.is_quarantined(model, row))

    def quarantine_models(self) -> tuple[str, ...]:
        """The models of which a release failed on a device, sorted."""
        return self._fleet_wide.quarantine.models()

    def quarantined_rows(self, model: str) -> Rows:
        """Rows that are quarantined until an operator clears them, ascending."""
        return self._fleet_wide.quarantine.rows(model)

    def rollbacks(self, model: str, row: int) -> int:
        """How many rollouts of the model the device rolled back."""
        return self._fleet_wide.quarantine.count(model, row)

    def unquarantine(self, model: str, row: int, rollbacks: int) -> None:
        """Clear the device, which had ``rollbacks``. The decision is durable."""
        self._fleet_wide.quarantine.unquarantine(model, row, rollbacks)

    def remove_device(self, row: int, at: float) -> dict[str, DeviceStanding]:
        """Remove a device from the fleet and from every rollout. The removal is durable.

        After a restart it is repeated with its time ``at``, once the rollouts have their reports:
        the labels of the device say of which cuts it was a part. Returns its standing in each open
        rollout that had reports of it.
        """
        found: dict[str, DeviceStanding] = {}
        for active in self._newest_first():
            standing = active.forget(row, at)
            if standing is not DeviceStanding.NONE:
                self._stirred.add(active.state.id)
            if standing is not DeviceStanding.NONE and active.state.status in OPEN:
                found[active.state.id] = standing
        self._fleet_wide.quarantine.forget(row)
        self.ahead.set(row, ())
        self.fleet.remove(row)
        return found

    def desired_models(self, row: int) -> tuple[str, ...]:
        """The models that a rollout gives the device, sorted."""
        models = self._desired.models
        return tuple(model for model in models if self._desired.rollout(row, model) is not None)

    def desired(self, row: int, model: str) -> str | None:
        """The release of the model that the device should run. None if no rollout covers it."""
        active = self._desired.rollout(row, model)
        return None if active is None else active.state.spec.release

    def rollout_of(self, row: int, model: str) -> str | None:
        """The rollout that gives the device its release. None if no rollout covers it."""
        active = self._desired.rollout(row, model)
        return None if active is None else active.state.id

    def rollout(self, rollout_id: str) -> ActiveRollout:
        """The rollout, to be read only. Raises OperatorError ``not_found``."""
        if (found := self._rollouts.get(rollout_id)) is None:
            raise OperatorError("not_found", f"There is no rollout {rollout_id}.", field="rollout")
        return found

    def view(self, rollout_id: str, now: float) -> RolloutView:
        """The rollout at this moment. Raises OperatorError ``not_found``."""
        return self._status.view(self.rollout(rollout_id), now)

    def why_rollout(self, rollout_id: str, now: float) -> WaitReport:
        """The reasons why the rollout waits. Raises OperatorError ``not_found``."""
        return self._status.why(self.rollout(rollout_id), now)

    def why_device(self, row: int, now: float) -> WaitReport:
        """Why the device runs what it runs."""
        rollouts = self._newest_first()
        return device_why.explain_device(
            row,
            self.fleet,
            self._desired,
            rollouts,
            now,
            decide=lambda model: self.admission.decide(row, model, now),
            refusal=lambda active: self.admission.refusal(active, row, now),
        )

    def why_release(self, model: str, release: str, now: float) -> WaitReport:
        """Where the release stands. Raises OperatorError ``not_found``."""
        published = self._published(model, release)
        return device_why.explain_release(
            published, self._desired.of_release(published.number), now
        )

    def _arrange(self) -> None:
        """Update the indexes. To be called when a rollout is added or changes."""
        self._memory_fit.arrange()
        self._fleet_wide.quarantine.arrange(
            {
                active.state.id: active.release.number
                for active in self._rollouts.values()
                if not active.state.is_taken_back
            },
            {
                one.state.id: one.set_aside.parts
                for one in self._rollouts.values()
                if one.set_aside.parts
            },
        )
        self._desired.arrange(self._rollouts.values())
        self.admission.arrange()
        self.intake.arrange()

    def _have_strayed(self, rows: Rows) -> Mask:
        """For each of ``rows``: True if a rollout that does not select the device has a report."""
        strayed = np.zeros(len(rows), np.bool_)
        for active in self._rollouts.values():
            reported = active.ledger.standings(rows) != DeviceStanding.NONE
            strayed |= reported & ~active.scope.all_selected(rows)
        return strayed

    def _start_by_time(self, active: ActiveRollout, now: float) -> Change | None:
        """The start of a rollout whose time has come. None while another has its devices."""
        at = active.state.spec.start_at
        if at is None or now < at:
            return None
        try:
            return self._change(active, self._event(active, Verb.START, now), now)
        except OperatorError:
            return None

    def _event(self, active: ActiveRollout, verb: Verb, now: float) -> Event:
        others = [other for other in self._rollouts.values() if other is not active]
        return self._next_transition.by_verb(
            active,
            verb,
            others,
            now,
            evidence=lambda: self._status.census(active, now).evidence,
            judgement=lambda: self._status.judge(active, self._status.census(active, now), now),
        )

    def _change(self, active: ActiveRollout, event: Event, now: float) -> Change:
        return Change(*step(active.state, event, now))

    def _scope(
        self, spec: RolloutSpec, release: PublishedRelease, salt: int, rollout: str | None = None
    ) -> Scope:
        variants = variants_of(release.manifest)
        limits = limits_of(release.manifest)
        room = Room(self._memory_fit, self.fleet, rollout, spec.model, limits)
        return Scope(
            self.fleet,
            parse(spec.selector),
            spec.model,
            variants,
            salt,
            room=room,
            comparison=comparison_name(release.manifest.golden.comparison),
        )

    def _interface_changes(self, scope: Scope, manifest: ReleaseManifest) -> tuple[str, ...]:
        """The changes that clients of the releases on the eligible devices notice."""
        running = plan.running_releases(
            scope, self.fleet, self._desired, manifest.model, self._releases
        )
        return changes_from(running, manifest)

    def _tenants(self) -> tuple[Tenant, ...]:
        return tuple(_tenant(active) for active in reversed(self._newest_first()))

    def _published(self, model: str, release: str) -> PublishedRelease:
        found = self._releases.get((model, release))
        if found is None:
            raise OperatorError(
                "not_found", f"There is no release {release} of model {model}.", field="release"
            )
        return found

    def _newest_first(self) -> tuple[ActiveRollout, ...]:
        return tuple(sorted(self._rollouts.values(), key=_age, reverse=True))


def _age(active: ActiveRollout) -> tuple[float, str]:
    """The sort key by which an older rollout comes first."""
    return active.state.created_at, active.state.id


def _is_evaluated(active: ActiveRollout) -> bool:
    state = active.state
    if state.status in OPEN or state.is_watched:
        return True
    return state.status is Status.COMPLETED and active.ledger.count(DeviceStanding.TRIAL) > 0


def _tenant(active: ActiveRollout) -> Tenant:
    state, scope = active.state, active.scope
    return Tenant(
        rollout=state.id,
        model=active.model,
        limits=limits_of(active.release.manifest),
        labels=scope.labels,
        kits=scope.kits,
        until=None if state.spec.follow else state.rows_at_end,
        keeps=state.status not in WITHDRAWN,
        is_completed=state.status is Status.COMPLETED,
    )
