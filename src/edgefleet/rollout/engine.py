"""The engine: what a shell (the hub, the simulator, a dry run) uses, and all that it needs.

Nothing here is durable. The shell stores each ``Change.state`` before it calls ``commit`` and each
outcome before it calls ``record``; at start-up it loads the states and records the outcomes again,
in any order, and the engine stands where it stood. Changes of one rollout must not overlap: from
``command`` or ``evaluate`` to ``commit`` no other change of that rollout may be made.
"""

from dataclasses import dataclass

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Telemetry
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Freeze, RolloutSpec, RolloutView, Status, Verb
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout import plan
from edgefleet.rollout.active import NOWHERE, ActiveRollout, Position, PublishedRelease
from edgefleet.rollout.admission.downloads import open_candidates, renew_candidates
from edgefleet.rollout.admission.legacy_grants import LegacyGrants
from edgefleet.rollout.admission.offers import Offers
from edgefleet.rollout.admission.starts import StartAdmission, allowed
from edgefleet.rollout.batch import Batch
from edgefleet.rollout.census import Census, call_overdue, find_owing
from edgefleet.rollout.constraints import approval
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.reservations import Blocked, Reservations
from edgefleet.rollout.constraints.window import Offset, check_windows, utc_only
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.evidence.ledger import Ledger
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.eligibility import variants_of
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.fleet.selector import parse
from edgefleet.rollout.intake import Intake
from edgefleet.rollout.lifecycle import step as steps
from edgefleet.rollout.lifecycle.state import EXCLUSIVE, JUDGED, OPEN, RolloutState
from edgefleet.rollout.lifecycle.step import AuditLine, Event, step
from edgefleet.rollout.next_event import NextEvent
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
        self._offset = utc_offset_s
        self._desired = Desired(self.fleet)
        self._fleet_wide = FleetConstraints()
        self._admission = StartAdmission(self.fleet, self._rollouts, self._fleet_wide)
        self._grants = LegacyGrants(self.fleet, self._desired, self._admission)
        self._intake = Intake(self.fleet, self._rollouts, self._fleet_wide, self._grants)
        self._offers = Offers(self._desired, self._admission)
        self.batch = Batch(
            self.fleet,
            self._rollouts,
            self._desired,
            self._admission,
            self._intake,
            grants=self._grants,
            offers=self._offers,
        )
        self._status = RolloutStatus(self.fleet, self._desired, self._fleet_wide, gate)
        self._next_event = NextEvent(self.fleet, self._desired)

    # What there is.

    def add_release(self, manifest: ReleaseManifest, manifest_sha256: str) -> None:
        """Make a release known, before the rollouts that use it are loaded."""
        key = (manifest.model, manifest.release)
        number = self.fleet.release_id(*key)
        self._releases[key] = PublishedRelease(manifest, manifest_sha256, number)

    def load(self, state: RolloutState) -> None:
        """Take in a rollout from the store, or one that was just planned."""
        release = self._published(state.spec.model, state.spec.release)
        scope = self._scope(state.spec, release, state.salt)
        reservations = Reservations(state.id, state.spec, self._fleet_wide, self._offset)
        active = ActiveRollout(state, release, scope, Ledger(len(state.waves)), reservations)
        self._rollouts[state.id] = active
        open_candidates(active, self.fleet, allowed(active), self._fleet_wide.budgets)
        self._arrange()

    def states(self) -> tuple[RolloutState, ...]:
        """Every rollout, newest first."""
        return tuple(active.state for active in self._newest_first())

    def open_rollouts(self) -> tuple[str, ...]:
        """Ids of the rollouts that have not ended, newest first."""
        return tuple(state.id for state in self.states() if state.status in OPEN)

    # What may change.

    def plan(self, spec: RolloutSpec, *, rollout_id: str, salt: int, now: float) -> RolloutState:
        """Check a rollout and return its first state. Changes nothing.

        ``salt`` is 64 random bits. Raises OperatorError: ``not_found``, ``waves_invalid``,
        ``percent_out_of_range``, ``percent_not_rising``, ``gate_invalid``, ``selector_invalid``,
        ``selector_key_unknown``, ``fleet_empty``, ``variant_missing``, ``release_failed_before``,
        ``rollout_overlap`` or ``release_current``.
        """
        release = self._published(spec.model, spec.release)
        plan.check_waves(spec.waves, self.fleet)
        plan.check_gate(spec.gate)
        plan.check_knobs(spec, self.fleet)
        check_windows(spec.windows, self._offset, now)
        plan.check_selector(spec.selector, self.fleet)
        scope = self._scope(spec, release, salt)
        plan.check_fleet(scope, self.fleet, spec)
        plan.check_not_failed_before(scope, release, self._rollouts.values())
        plan.check_free(scope, self._rollouts.values(), EXCLUSIVE)
        plan.check_new(scope, release, self._desired)
        previous = plan.previous_release(scope, self.fleet, self._desired, spec.model)
        created_at = plan.after_all(self._rollouts.values(), now)
        return plan.planned(
            spec, rollout_id=rollout_id, salt=salt, previous=previous, now=created_at
        )

    def command(
        self, rollout_id: str, verb: Verb, *, now: float, generation: int | None = None
    ) -> Change:
        """What an operator's verb would do. Changes nothing until it is committed.

        Raises OperatorError ``not_found``; ``verb_not_now`` where the rollout does not stand so, or
        when it moved on since ``generation``; ``rollout_overlap`` where another holds its devices.
        """
        active = self.rollout(rollout_id)
        if generation is not None and generation != active.state.generation:
            raise OperatorError(
                "verb_not_now",
                f"Rollout {rollout_id} moved on: it is {active.state.status} in generation "
                f"{active.state.generation}, not {generation}.",
                field="generation",
            )
        return self._change(active, self._event(active, verb, now), now)

    def approve(self, rollout_id: str, person: str, *, now: float) -> Change:
        """What a person's agreement would do. Changes nothing until it is committed.

        Raises OperatorError ``not_found``, ``verb_not_now`` or ``approved_already``.
        """
        active = self.rollout(rollout_id)
        approval.check_person(active.state, person)
        given = approval.approval(active.state, person, now)
        return self._change(active, steps.Approved(approval=given), now)

    def evaluate(self, rollout_id: str, now: float) -> Change | None:
        """Judge the gate, or see whether everybody is back; None when nothing changes."""
        active = self.rollout(rollout_id)
        if active.state.status is Status.REVERTING:
            owing = find_owing(active, self.fleet, self._desired, now)
            if len(owing.online) and now < steps.returned_by(active.state):
                return None
            return self._change(active, steps.RevertCompleted(left=len(owing.online)), now)
        if active.state.status is Status.PLANNED:
            return self._start_by_time(active, now)
        census = self._status.census(active, now)
        judgement = self._status.judge(active, census, now)
        event = None if judgement is None else self._next_event.by_gate(active, judgement)
        if event is None or isinstance(event, steps.WaitReasonChanged):
            self._admit_more(active, census, now)
        return None if event is None else self._change(active, event, now)

    def _admit_more(self, active: ActiveRollout, census: Census, now: float) -> None:
        """Ask for as many candidates as may start soon."""
        call_overdue(active, self.fleet, census, now)
        if self._admission.shut_to_all(active, census.offered, now):
            active.candidates.hold(now)
        else:
            renew_candidates(
                active,
                self.fleet,
                census.offered,
                allowed=allowed(active),
                budgets=self._fleet_wide.budgets,
                now=now,
            )

    def commit(self, change: Change) -> None:
        """Take over a state that is durable now. It must follow the one that the engine holds."""
        active = self.rollout(change.state.id)
        before, after = active.state.revision, change.state.revision
        if after != before + 1:
            raise AssertionError(f"{change.state.id}: revision {after} after {before}")
        active.become(change.state)
        if change.state.status in JUDGED:
            open_candidates(active, self.fleet, allowed(active), self._fleet_wide.budgets)
        elif change.state.status not in OPEN:
            active.cohorts = Cohorts()
        self._arrange()

    # What devices say, and are told.

    def position(self, row: int, outcome: Outcome) -> Position | None:
        """The position of a device in the rollout that it reports on.

        To be read when the report arrives, because the facts of the device may change later. None
        if the device has no part in the rollout: such a report is dropped.
        """
        active = self._rollouts.get(outcome.rollout)
        if outcome.kind is OutcomeKind.OFFERED:
            return None
        return NOWHERE if active is None else active.position_of_report(row, outcome.kind)

    def admit(
        self, row: int, outcome: Outcome, now: float, position: Position | None = None
    ) -> bool:
        """Whether the device may start now. ``outcome`` is the start that it announces.

        True reserves the place until the start is recorded or ``release`` returns it, so a shell
        stores and acknowledges exactly the starts that were admitted. A start that is recorded or
        reserved already is admitted again. ``position`` saves reading it again.
        """
        active = self._rollouts.get(outcome.rollout)
        if active is None:
            return False
        where = active.position(row) if position is None else position
        return self._admission.admit(active, row, where, outcome, now)

    def grant(self, row: int, now: float) -> Outcome | None:
        """What must be stored and recorded before ``answer`` offers the device what it may have.

        To an agent of the version before, which starts by itself, the offer is the grant. Ask after
        each check-in of a device; a shell that does not ask offers such agents nothing. The place
        is reserved until the grant is recorded or ``release`` gives it back.
        """
        return self._grants.give(row, now)

    def release(self, row: int, outcome: Outcome) -> None:
        """The start or grant that was admitted could not be stored: its place is free again."""
        active = self._rollouts.get(outcome.rollout)
        if active is not None:
            active.reservations.release(row)

    def record(self, row: int, outcome: Outcome, at: float | None = None) -> bool:
        """Count a durable outcome; False when it says nothing new or concerns no known rollout.

        ``at`` is when it was received, by the clock of whoever calls: starts count for the pace by
        it after a restart.
        """
        return self._intake.record(row, outcome, at)

    def telemetry(self, row: int, telemetry: Telemetry, now: float) -> None:
        """Add serving figures to the cohort that the device is in. Soft."""
        self._intake.add_telemetry(row, telemetry, now)

    def answer(self, row: int, now: float) -> Offer | None:
        """What the device should run, when that is not what it said it runs."""
        return self._offers.give(row, now)

    def decide(self, row: int, now: float) -> Offer | Blocked:
        """What ``answer`` would say to the device now, or why it is offered nothing."""
        return self._offers.decide(row, now)

    # What holds for the whole fleet.

    @property
    def freeze(self) -> Freeze:
        """Whether nobody may begin anything."""
        return self._fleet_wide.freeze

    def set_freeze(self, freeze: Freeze) -> None:
        """Freeze or let go; the shell has made it durable."""
        self._fleet_wide.freeze = freeze

    def quarantined_models(self, row: int) -> tuple[str, ...]:
        """The models of which the device rolled back two releases."""
        quarantine = self._fleet_wide.quarantine
        models = quarantine.models()
        return tuple(model for model in models if quarantine.is_quarantined(model, row))

    def quarantined_rows(self, model: str) -> Rows:
        """Rows that are quarantined until an operator clears them, ascending."""
        return self._fleet_wide.quarantine.rows(model)

    def rollbacks(self, model: str, row: int) -> int:
        """After how many rollouts of the model the device went back."""
        return self._fleet_wide.quarantine.count(model, row)

    def unquarantine(self, model: str, row: int, rollbacks: int) -> None:
        """A person cleared the device when it had so many; the shell has made it durable."""
        self._fleet_wide.quarantine.unquarantine(model, row, rollbacks)

    def desired(self, row: int) -> str | None:
        """The release that the device should run; None when no rollout says."""
        active = self._desired.rollout(row)
        return None if active is None else active.state.spec.release

    def rollout_of(self, row: int) -> str | None:
        """The rollout that says what the device should run."""
        active = self._desired.rollout(row)
        return None if active is None else active.state.id

    # What people see.

    def rollout(self, rollout_id: str) -> ActiveRollout:
        """The rollout, to be read only. Raises OperatorError ``not_found``."""
        if (found := self._rollouts.get(rollout_id)) is None:
            raise OperatorError("not_found", f"There is no rollout {rollout_id}.", field="rollout")
        return found

    def view(self, rollout_id: str, now: float) -> RolloutView:
        """The rollout at this moment. Raises OperatorError ``not_found``."""
        return self._status.view(self.rollout(rollout_id), now)

    def why_rollout(self, rollout_id: str, now: float) -> WaitReport:
        """What the rollout waits for. Raises OperatorError ``not_found``."""
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
            decision=self._offers.decide(row, now),
            refusal=lambda active: self._admission.refusal(active, row, now),
        )

    def why_release(self, model: str, release: str, now: float) -> WaitReport:
        """Where the release stands. Raises OperatorError ``not_found``."""
        published = self._published(model, release)
        return device_why.explain_release(
            published, self._desired.of_release(published.number), now
        )

    # Inside.

    def _arrange(self) -> None:
        """A rollout came or changed."""
        self._desired.arrange(self._rollouts.values())
        self._admission.arrange()
        self._intake.arrange()

    def _start_by_time(self, active: ActiveRollout, now: float) -> Change | None:
        """Start what is planned for now, unless another rollout holds its devices."""
        at = active.state.spec.start_at
        if at is None or now < at:
            return None
        try:
            return self._change(active, self._event(active, Verb.START, now), now)
        except OperatorError:
            return None

    def _event(self, active: ActiveRollout, verb: Verb, now: float) -> Event:
        others = [other for other in self._rollouts.values() if other is not active]
        return self._next_event.by_verb(
            active,
            verb,
            others,
            now,
            evidence=lambda: self._status.census(active, now).evidence,
        )

    def _change(self, active: ActiveRollout, event: Event, now: float) -> Change:
        return Change(*step(active.state, event, now))

    def _scope(self, spec: RolloutSpec, release: PublishedRelease, salt: int) -> Scope:
        return Scope(self.fleet, parse(spec.selector), variants_of(release.manifest), salt)

    def _published(self, model: str, release: str) -> PublishedRelease:
        found = self._releases.get((model, release))
        if found is None:
            raise OperatorError(
                "not_found", f"There is no release {release} of model {model}.", field="release"
            )
        return found

    def _newest_first(self) -> tuple[ActiveRollout, ...]:
        return tuple(
            sorted(
                self._rollouts.values(),
                key=lambda active: (active.state.created_at, active.state.id),
                reverse=True,
            )
        )
