"""The next event of a rollout, from an operator's verb or from the gate's judgement.

``step`` applies the event to the state.
"""

from collections.abc import Callable, Collection

from edgefleet.protocol.rollout import BakeEnd, Evidence, Judgement, Status, Verb, Verdict
from edgefleet.rollout import bake, openings, plan
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle import event as events
from edgefleet.rollout.lifecycle import step as steps
from edgefleet.rollout.lifecycle.event import Event
from edgefleet.rollout.lifecycle.state import ACTING, JUDGED
from edgefleet.rollout.lifecycle.table import RolloutSignal
from edgefleet.rollout.lifecycle.waves import Opening
from edgefleet.rollout.limits import BETS_STORED_S
from edgefleet.rollout.withdrawal import withdrawn


class NextTransition:
    """Finds the next event of a rollout of one fleet. Changes nothing."""

    def __init__(self, fleet: Fleet, desired: Desired) -> None:
        self._fleet = fleet
        self._desired = desired

    def by_verb(
        self,
        active: ActiveRollout,
        verb: Verb,
        others: Collection[ActiveRollout],
        now: float,
        *,
        evidence: Callable[[], Evidence],
        judgement: Callable[[], Judgement | None],
    ) -> Event:
        """The event for ``verb``. ``others`` are all other rollouts.

        ``evidence`` and ``judgement`` return those of the open wave now. Raises OperatorError
        ``verb_not_now``, or ``rollout_overlap`` if another rollout acts on common devices.
        """
        match verb:
            case Verb.START:
                steps.check_allowed(active.state, RolloutSignal.STARTED)
                plan.check_free(active.scope, active.model, others, ACTING)
                return events.Started(
                    previous=plan.previous_release(
                        active.scope, self._fleet, self._desired, active.state.spec.model
                    ),
                    opening=openings.next_openings(active, self._fleet, now)[0],
                )
            case Verb.PAUSE:
                return events.Paused()
            case Verb.RESUME:
                steps.check_allowed(active.state, RolloutSignal.RESUMED)
                plan.check_free(active.scope, active.model, others, ACTING)
                plan.check_newest(active, others)
                begun = active.state.wave is not None
                opening = None if begun else openings.next_openings(active, self._fleet, now)[0]
                return events.Resumed(opening=opening)
            case Verb.ADVANCE if active.state.is_baking:
                return events.BakeEnded(end=BakeEnd.BY_HAND)
            case Verb.ADVANCE:
                steps.check_allowed(active.state, RolloutSignal.ADVANCED)
                return self._onward(active, steps.by_hand(evidence(), now), by_hand=True)
            case Verb.HALT:
                return events.Halted(judgement=judgement())
            case Verb.REVERT:
                steps.check_allowed(active.state, RolloutSignal.REVERT_REQUESTED)
                plan.check_free(active.scope, active.model, others, ACTING)
                return events.RevertRequested(judgement=judgement())

    def by_gate(self, active: ActiveRollout, judgement: Judgement) -> Event | None:
        """The event for a judgement of the gate. None if the judgement changes nothing."""
        match judgement.verdict:
            case Verdict.FAIL:
                return withdrawn(active, judgement)
            case Verdict.PASS if active.state.status is Status.RUNNING:
                return self._onward(active, judgement, by_hand=False)
            case Verdict.PASS | Verdict.INCONCLUSIVE:
                if judgement.reason == gate.EXTENDS and active.state.status is Status.RUNNING:
                    extended = self._extended(active, judgement)
                    if extended is not None:
                        return extended
                wave = active.state.open_wave
                before = None if wave is None else wave.judgement
                unchanged = (
                    before is not None
                    and before.reason == judgement.reason
                    and before.at <= judgement.at  # False after the clock was set back
                )
                if (unchanged or judgement.verdict is Verdict.PASS) and not judgement.interim:
                    return None
                return events.WaitReasonChanged(judgement=judgement)

    def _extended(self, active: ActiveRollout, judgement: Judgement) -> Event | None:
        """The next devices for a wave that cannot be judged. None if none may be added now.

        Devices that do not start within the patience are not waited for.
        """
        fleet, seen, now = self._fleet, judgement.evidence, judgement.at
        spec = active.state.spec
        missing = gate.count_missing(seen, spec.gate)
        if missing > 0 and seen.spare:
            one = openings.moved_up(active, fleet, missing, now)
            return _extend(judgement, () if one is None else (one,), in_place=True)
        most = exposure.handful(spec.exposure, seen.cut + seen.remaining)
        patience_from = active.reservations.patience_from(active.state, now)
        is_patient = now < patience_from + spec.gate.patience_s
        out = seen.in_trial + (seen.offered if is_patient else 0) if seen.handful else 0
        if 2 * out > most:
            return None
        found = openings.handful_openings(active, fleet, most - out, now)
        return _extend(judgement, found, in_place=bool(seen.handful) and len(found) == 1)

    def _onward(self, active: ActiveRollout, judgement: Judgement, *, by_hand: bool) -> Event:
        following = openings.next_openings(active, self._fleet, judgement.at)
        if openings.leads_on(active, following):
            return events.Advanced(judgement=judgement, openings=following, by_hand=by_hand)
        return events.Finished(
            judgement=judgement,
            openings=following,
            by_hand=by_hand,
            rows=len(self._fleet),
            bake=bake.begin(active, following, judgement.at),
        )


def _extend(
    judgement: Judgement, found: tuple[Opening, ...], *, in_place: bool
) -> events.Extended | None:
    if not found:
        return None
    return events.Extended(judgement=judgement, openings=found, in_place=in_place)


def bets_to_store(active: ActiveRollout, now: float) -> events.BetsStored | None:
    """The event that stores the bets. None if none changed, or some were stored just now."""
    state = active.state
    is_judged = state.status in JUDGED or state.is_baking
    if not is_judged or abs(now - state.bets_at) < BETS_STORED_S:
        return None
    bets, pairs = active.cohorts.stored_bets(), active.cohorts.stored_pairs()
    if bets == state.bets and pairs == state.limit_pairs:
        return None
    return events.BetsStored(bets=bets, limit_pairs=pairs)
