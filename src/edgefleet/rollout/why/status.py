"""The status of a rollout at one time: its census, the gate's judgement, and its waits."""

from edgefleet.protocol.rollout import Evidence, Judgement, RolloutView, Status
from edgefleet.protocol.why import Wait, WaitReport
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.control import allowed, limit_reason
from edgefleet.rollout.census import (
    Census,
    bake_evidence,
    closed_evidence,
    count_census,
    find_owing,
)
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.custom import judge_with
from edgefleet.rollout.evidence.gate import Gate
from edgefleet.rollout.fleet.columns import Rows, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import JUDGED
from edgefleet.rollout.limits import CENSUS_KEPT_FROM, CENSUS_KEPT_S
from edgefleet.rollout.one_site import name_site
from edgefleet.rollout.why import rollout as why
from edgefleet.rollout.why.blocked import blocked_waits
from edgefleet.rollout.why.left_out import NOBODY, find_left_out
from edgefleet.rollout.why.view import show


class RolloutStatus:
    """Reads rollouts and changes none. Caches the last census of each very large wave."""

    def __init__(
        self, fleet: Fleet, desired: Desired, fleet_wide: FleetConstraints, gate: Gate
    ) -> None:
        self._fleet = fleet
        self._desired = desired
        self._fleet_wide = fleet_wide
        self._gate = gate
        self._counted: dict[
            str, tuple[int, float, Census]
        ] = {}  # rollout -> (revision, at, census)

    def census(self, active: ActiveRollout, now: float) -> Census:
        """Count the open wave now, for a decision about the rollout."""
        rollout, model = active.state.id, active.model
        census = count_census(
            active,
            self._fleet,
            self._desired,
            now,
            out=self._fleet_wide.for_a_person(rollout, model),
            patient=self._fleet_wide.patient_rows(rollout, model),
        )
        if census.evidence.cut >= CENSUS_KEPT_FROM:
            self._counted[active.state.id] = (active.state.revision, now, census)
        return census

    def judge(self, active: ActiveRollout, census: Census, now: float) -> Judgement | None:
        """The gate's judgement of the open wave.

        None if no wave is open or the status of the rollout is not judged.
        """
        wave = active.state.open_wave
        if active.state.status not in JUDGED or wave is None or wave.opened_at is None:
            return None
        return self._judge(
            active,
            census.evidence,
            census.silent.all(),
            opened_at=active.reservations.patience_from(active.state, now),
            now=now,
        )

    def judge_bake(self, active: ActiveRollout, now: float) -> tuple[Evidence, Judgement | None]:
        """The evidence after the last wave, and the gate's judgement of it in the bake."""
        wave = active.state.open_wave
        if not active.state.is_baking or wave is None:
            return closed_evidence(active, self._fleet, now), None
        evidence, silent = bake_evidence(active, self._fleet, now)
        judgement = self._judge(active, evidence, silent, opened_at=active.state.since, now=now)
        return evidence, judgement

    def _judge(
        self,
        active: ActiveRollout,
        evidence: Evidence,
        silent: Rows,
        *,
        opened_at: float,
        now: float,
    ) -> Judgement:
        """The gate's judgement, with the site on which it rests. ``silent`` as in ``name_site``."""
        wave = active.state.open_wave
        before = None if wave is None else wave.judgement

        def judge(evidence: Evidence) -> Judgement:
            spec = active.state.spec.gate
            return judge_with(
                self._gate, evidence, spec, opened_at=opened_at, before=before, now=now
            )

        return name_site(active, self._fleet, judge(evidence), silent, judge)

    def view(self, active: ActiveRollout, now: float) -> RolloutView:
        """The rollout as API, CLI and pages show it."""
        evidence, judgement, report = self._observe(active, now)
        bound = allowed(active, now) if active.state.status in JUDGED else None
        return show(active, evidence, judgement, report, bound)

    def why(self, active: ActiveRollout, now: float) -> WaitReport:
        """The waits of the rollout."""
        return self._observe(active, now)[2]

    def _observe(
        self, active: ActiveRollout, now: float
    ) -> tuple[Evidence, Judgement | None, WaitReport]:
        match active.state.status:
            case Status.RUNNING | Status.PAUSED | Status.HALTED:
                census = self._recent_census(active, now)
                sight = why.Observation(
                    now,
                    census,
                    judgement=self.judge(active, census, now),
                    patience_from=active.reservations.patience_from(active.state, now),
                    blocked=self._blocked(active, census.offered, now),
                )
                evidence = census.evidence
            case Status.REVERTING | Status.REVERTED:
                owing = find_owing(active, self._fleet, self._desired, now)
                sight = why.Observation(now, owing=owing)
                evidence = closed_evidence(active, self._fleet, now)
            case Status.PLANNED:
                sight = why.Observation(now, blocked=self._blocked(active, Census().offered, now))
                evidence = closed_evidence(active, self._fleet, now)
            case Status.COMPLETED | Status.REFUSED:
                left_out = NOBODY
                if self._desired.newest(active.model) is active:
                    left_out = find_left_out(active, self._fleet, self._fleet_wide)
                sight = why.Observation(
                    now,
                    left_out=left_out,
                    blocked=tuple(left_out.waits(self._fleet, self._fleet_wide)),
                )
                evidence = closed_evidence(active, self._fleet, now)
        report = why.explain_rollout(active, self._fleet, sight)
        return evidence, sight.judgement, report

    def _blocked(
        self, active: ActiveRollout, waiting: RowSelection, now: float
    ) -> tuple[Wait, ...]:
        """The reasons that block ``waiting``, online devices that have not begun."""
        return blocked_waits(
            active,
            self._fleet,
            self._fleet_wide,
            waiting,
            allowed=allowed(active, now),
            reason=lambda: limit_reason(active, now),
            now=now,
        )

    def _recent_census(self, active: ActiveRollout, now: float) -> Census:
        """The census for readers. For a very large wave it may be CENSUS_KEPT_S old."""
        revision, at, census = self._counted.get(active.state.id, (-1, 0.0, Census()))
        if revision == active.state.revision and 0 <= now - at < CENSUS_KEPT_S:
            return census
        return self.census(active, now)
