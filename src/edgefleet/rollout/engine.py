"""The engine: what a shell (the hub, the simulator, a dry run) uses, and all that it needs.

Nothing here is durable. The shell stores each ``Change.state`` before it calls ``commit`` and each
outcome before it calls ``record``; at start-up it loads the states and records the outcomes again,
in any order, and the engine stands where it stood. Changes of one rollout must not overlap: from
``command`` or ``look`` to ``commit`` no other change of that rollout may be made.
"""

from dataclasses import dataclass

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Telemetry
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import (
    Evidence,
    Judgement,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    Verdict,
)
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout import device_why, plan, why
from edgefleet.rollout import step as steps
from edgefleet.rollout.cohorts import Cohorts
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence import Census, closed_evidence, find_owing, take_census
from edgefleet.rollout.fleet import Fleet
from edgefleet.rollout.gate import Gate, judge
from edgefleet.rollout.ledger import Ledger, Standing
from edgefleet.rollout.scope import Scope
from edgefleet.rollout.selector import parse
from edgefleet.rollout.state import ACTING, HOLDING, OPEN, RolloutState
from edgefleet.rollout.step import AuditLine, Event, step
from edgefleet.rollout.table import Signal
from edgefleet.rollout.track import Published, Track
from edgefleet.rollout.view import show

_JUDGED = frozenset({Status.RUNNING, Status.PAUSED})


@dataclass(frozen=True, slots=True)
class Change:
    """The next state of a rollout, to be made durable and then committed, with its audit lines."""

    state: RolloutState
    audit: tuple[AuditLine, ...] = ()


class Engine:
    """All rollouts over one fleet. ``now`` is when this process begins to listen to devices."""

    def __init__(self, *, now: float, offline_after_s: float = 180.0, gate: Gate = judge) -> None:
        self.fleet = Fleet(listening_since=now, offline_after_s=offline_after_s)
        self._gate = gate
        self._releases: dict[tuple[str, str], Published] = {}
        self._tracks: dict[str, Track] = {}
        self._desired = Desired(self.fleet)

    # What there is.

    def add_release(self, manifest: ReleaseManifest, manifest_sha256: str) -> None:
        """Make a release known, before the rollouts that use it are loaded."""
        key = (manifest.model, manifest.release)
        number = self.fleet.release_id(*key)
        self._releases[key] = Published(manifest, manifest_sha256, number)

    def load(self, state: RolloutState) -> None:
        """Take in a rollout from the store, or one that was just planned."""
        release = self._published(state.spec.model, state.spec.release)
        scope = self._scope(state.spec, release, state.salt)
        self._tracks[state.id] = Track(state, release, scope, Ledger(len(state.waves)))
        self._desired.arrange(self._tracks.values())

    def states(self) -> tuple[RolloutState, ...]:
        """Every rollout, newest first."""
        return tuple(track.state for track in self._newest_first())

    def open_rollouts(self) -> tuple[str, ...]:
        """Ids of the rollouts that have not ended, newest first."""
        return tuple(state.id for state in self.states() if state.status in OPEN)

    # What may change.

    def plan(self, spec: RolloutSpec, *, rollout_id: str, salt: int, now: float) -> RolloutState:
        """Check a rollout and return its first state. Changes nothing.

        ``salt`` is 64 random bits. Raises OperatorError: ``not_found``, ``waves_invalid``,
        ``percent_out_of_range``, ``percent_not_rising``, ``gate_invalid``, ``selector_invalid``,
        ``selector_key_unknown``, ``fleet_empty``, ``variant_missing``, ``release_failed_before`` or
        ``rollout_overlap``.
        """
        release = self._published(spec.model, spec.release)
        plan.check_waves(spec.waves)
        plan.check_gate(spec.gate)
        selector = plan.check_selector(spec.selector, self.fleet)
        plan.check_fleet(self.fleet, selector, release)
        scope = self._scope(spec, release, salt)
        plan.check_not_failed_before(scope, release, self._tracks.values())
        plan.check_free(scope, self._tracks.values(), HOLDING)
        previous = plan.previous_release(scope, self.fleet, self._desired, spec.model)
        created_at = plan.after_all(self._tracks.values(), now)
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
        track = self._track(rollout_id)
        if generation is not None and generation != track.state.generation:
            raise OperatorError(
                "verb_not_now",
                f"Rollout {rollout_id} moved on: it is {track.state.status} in generation "
                f"{track.state.generation}, not {generation}.",
                field="generation",
            )
        return self._change(track, self._event(track, verb, now), now)

    def look(self, rollout_id: str, now: float) -> Change | None:
        """Judge the gate, or see whether everybody is back; None when nothing changes."""
        track = self._track(rollout_id)
        if track.state.status is Status.REVERTING:
            owing = find_owing(track, self.fleet, self._desired, now)
            if len(owing.online) and now < steps.returned_by(track.state):
                return None
            return self._change(track, steps.Returned(left=len(owing.online)), now)
        judgement = self._judge(track, take_census(track, self.fleet, self._desired, now), now)
        if judgement is None:
            return None
        event = self._gate_event(track, judgement)
        return None if event is None else self._change(track, event, now)

    def commit(self, change: Change) -> None:
        """Take over a state that is durable now. It must follow the one that the engine holds."""
        track = self._track(change.state.id)
        if change.state.revision != track.state.revision + 1:
            msg = (
                f"{change.state.id}: revision {change.state.revision} after {track.state.revision}"
            )
            raise AssertionError(msg)
        track.state = change.state
        if change.state.status not in OPEN:
            track.cohorts = Cohorts()
        self._desired.arrange(self._tracks.values())

    # What devices say, and are told.

    def concerns(self, row: int, outcome: Outcome) -> bool:
        """False for a report on a rollout that the device has no part in: keep none of those.

        To be asked when the report arrives. Later the device's facts may be others.
        """
        track = self._tracks.get(outcome.rollout)
        return track is None or track.has_part(row, outcome.kind)

    def record(self, row: int, outcome: Outcome) -> bool:
        """Count a durable outcome; False when it says nothing new or concerns no known rollout."""
        track = self._tracks.get(outcome.rollout)
        if track is None:
            return False
        # On the way back a device may also report on the release that it goes back to.
        if outcome.kind is not OutcomeKind.REVERTED and outcome.release != track.state.spec.release:
            return False
        return track.ledger.record(row, outcome, track.wave_of(row))

    def telemetry(self, row: int, telemetry: Telemetry, now: float) -> None:
        """Add serving figures to the cohort that the device is in. Soft."""
        for track in self._tracks.values():
            state = track.state
            started = state.started_at is not None and state.started_at <= now
            if state.status not in _JUDGED or not started or not track.scope.eligible(row):
                continue
            running = self.fleet.running(row)
            if running is not None and running[0] != state.spec.model:
                continue
            took = track.ledger.standing(row) is not Standing.NONE
            if telemetry.release == state.spec.release and took:
                track.cohorts.canary.add(row, telemetry)
            elif telemetry.release == state.previous and not took:
                track.cohorts.control.add(row, telemetry)

    def answer(self, row: int, now: float) -> Offer | None:  # noqa: ARG002 - windows need the time
        """What the device should run, when that is not what it said it runs."""
        return self._desired.offer(row)

    def desired(self, row: int) -> str | None:
        """The release that the device should run; None when no rollout says."""
        track = self._desired.track(row)
        return None if track is None else track.state.spec.release

    def rollout_of(self, row: int) -> str | None:
        """The rollout that says what the device should run."""
        track = self._desired.track(row)
        return None if track is None else track.state.id

    # What people see.

    def view(self, rollout_id: str, now: float) -> RolloutView:
        """The rollout at this moment. Raises OperatorError ``not_found``."""
        track = self._track(rollout_id)
        evidence, judgement, report = self._look_at(track, now)
        return show(track, evidence, judgement, report)

    def why_rollout(self, rollout_id: str, now: float) -> WaitReport:
        """What the rollout waits for. Raises OperatorError ``not_found``."""
        return self._look_at(self._track(rollout_id), now)[2]

    def why_device(self, row: int, now: float) -> WaitReport:
        """Why the device runs what it runs."""
        tracks = self._newest_first()
        return device_why.explain_device(row, self.fleet, self._desired, tracks, now)

    def why_release(self, model: str, release: str, now: float) -> WaitReport:
        """Where the release stands. Raises OperatorError ``not_found``."""
        published = self._published(model, release)
        return device_why.explain_release(
            published, self._desired.of_release(published.number), now
        )

    # Inside.

    def _look_at(self, track: Track, now: float) -> tuple[Evidence, Judgement | None, WaitReport]:
        match track.state.status:
            case Status.RUNNING | Status.PAUSED | Status.HALTED:
                census = take_census(track, self.fleet, self._desired, now)
                sight = why.Sight(now, census, judgement=self._judge(track, census, now))
                evidence = census.evidence
            case Status.REVERTING | Status.REVERTED:
                owing = find_owing(track, self.fleet, self._desired, now)
                sight, evidence = (
                    why.Sight(now, owing=owing),
                    closed_evidence(track, self.fleet, now),
                )
            case Status.PLANNED | Status.COMPLETED | Status.REFUSED:
                sight, evidence = why.Sight(now), closed_evidence(track, self.fleet, now)
        report = why.explain_rollout(track, self.fleet, sight)
        return evidence, sight.judgement, report

    def _judge(self, track: Track, census: Census, now: float) -> Judgement | None:
        wave = track.state.open_wave
        if track.state.status not in _JUDGED or wave is None or wave.opened_at is None:
            return None
        return self._gate(
            census.evidence,
            track.state.spec.gate,
            opened_at=wave.opened_at,
            before=wave.judgement,
            now=now,
        )

    def _gate_event(self, track: Track, judgement: Judgement) -> Event | None:
        match judgement.verdict:
            case Verdict.FAIL if judgement.evidence.exposed:
                return steps.GateFailed(judgement=judgement)
            case Verdict.FAIL:
                return steps.GateRefused(judgement=judgement)
            case Verdict.PASS if track.state.status is Status.RUNNING:
                return self._onward(track, judgement, by_hand=False)
            case Verdict.PASS | Verdict.INCONCLUSIVE:
                wave = track.state.open_wave
                before = None if wave is None else wave.judgement
                stands = (
                    before is not None
                    and before.reason == judgement.reason
                    and before.at <= judgement.at  # else somebody set the clock back
                )
                if stands or judgement.verdict is Verdict.PASS:
                    return None
                return steps.Judged(judgement=judgement)

    def _onward(self, track: Track, judgement: Judgement, *, by_hand: bool) -> Event:
        openings = plan.next_openings(track, self.fleet)
        kind = steps.Advanced if plan.leads_on(track, openings) else steps.Finished
        return kind(judgement=judgement, openings=openings, by_hand=by_hand)

    def _event(self, track: Track, verb: Verb, now: float) -> Event:
        others = [other for other in self._tracks.values() if other is not track]
        match verb:
            case Verb.START:
                steps.check_allowed(track.state, Signal.STARTED, "start")
                plan.check_free(track.scope, others, ACTING)
                return steps.Started(
                    previous=plan.previous_release(
                        track.scope, self.fleet, self._desired, track.state.spec.model
                    ),
                    opening=plan.next_openings(track, self.fleet)[0],
                )
            case Verb.PAUSE:
                return steps.Paused()
            case Verb.RESUME:
                steps.check_allowed(track.state, Signal.RESUMED, "resume")
                plan.check_free(track.scope, others, ACTING)
                plan.check_newest(track, others)
                begun = track.state.wave is not None
                opening = None if begun else plan.next_openings(track, self.fleet)[0]
                return steps.Resumed(opening=opening)
            case Verb.ADVANCE:
                steps.check_allowed(track.state, Signal.ADVANCED, "advance")
                census = take_census(track, self.fleet, self._desired, now)
                return self._onward(track, steps.by_hand(census.evidence, now), by_hand=True)
            case Verb.HALT:
                return steps.Halted()
            case Verb.REVERT:
                steps.check_allowed(track.state, Signal.RECALLED, "revert")
                plan.check_free(track.scope, others, ACTING)
                return steps.Recalled()

    def _change(self, track: Track, event: Event, now: float) -> Change:
        state, audit = step(track.state, event, now)
        return Change(state, audit)

    def _scope(self, spec: RolloutSpec, release: Published, salt: int) -> Scope:
        return Scope(self.fleet, parse(spec.selector), plan.profiles_of(release), salt)

    def _published(self, model: str, release: str) -> Published:
        found = self._releases.get((model, release))
        if found is None:
            raise OperatorError(
                "not_found", f"There is no release {release} of model {model}.", field="release"
            )
        return found

    def _track(self, rollout_id: str) -> Track:
        found = self._tracks.get(rollout_id)
        if found is None:
            raise OperatorError("not_found", f"There is no rollout {rollout_id}.", field="rollout")
        return found

    def _newest_first(self) -> tuple[Track, ...]:
        return tuple(
            sorted(
                self._tracks.values(),
                key=lambda track: (track.state.created_at, track.state.id),
                reverse=True,
            )
        )
