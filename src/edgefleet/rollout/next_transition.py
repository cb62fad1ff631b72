"""The next event of a rollout, from an operator's verb or from the gate's judgement.

``step`` applies the event to the state.
"""

from collections.abc import Callable, Collection

from edgefleet.protocol.rollout import BakeEnd, Evidence, Judgement, Status, Verb, Verdict
from edgefleet.rollout import bake, plan
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle import step as steps
from edgefleet.rollout.lifecycle.state import ACTING
from edgefleet.rollout.lifecycle.step import Event
from edgefleet.rollout.lifecycle.table import RolloutSignal


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
    ) -> Event:
        """The event for ``verb``. ``others`` are all other rollouts.

        ``evidence`` returns the current evidence. Raises OperatorError ``verb_not_now``, or
        ``rollout_overlap`` if another rollout acts on common devices.
        """
        match verb:
            case Verb.START:
                steps.check_allowed(active.state, RolloutSignal.STARTED, "start")
                plan.check_free(active.scope, active.model, others, ACTING)
                return steps.Started(
                    previous=plan.previous_release(
                        active.scope, self._fleet, self._desired, active.state.spec.model
                    ),
                    opening=plan.next_openings(active, self._fleet)[0],
                )
            case Verb.PAUSE:
                return steps.Paused()
            case Verb.RESUME:
                steps.check_allowed(active.state, RolloutSignal.RESUMED, "resume")
                plan.check_free(active.scope, active.model, others, ACTING)
                plan.check_newest(active, others)
                begun = active.state.wave is not None
                opening = None if begun else plan.next_openings(active, self._fleet)[0]
                return steps.Resumed(opening=opening)
            case Verb.ADVANCE if active.state.is_baking:
                return steps.BakeEnded(end=BakeEnd.BY_HAND)
            case Verb.ADVANCE:
                steps.check_allowed(active.state, RolloutSignal.ADVANCED, "advance")
                return self._onward(active, steps.by_hand(evidence(), now), by_hand=True)
            case Verb.HALT:
                return steps.Halted()
            case Verb.REVERT:
                steps.check_allowed(active.state, RolloutSignal.REVERT_REQUESTED, "revert")
                plan.check_free(active.scope, active.model, others, ACTING)
                return steps.RevertRequested()

    def by_gate(self, active: ActiveRollout, judgement: Judgement) -> Event | None:
        """The event for a judgement of the gate. None if the judgement changes nothing."""
        match judgement.verdict:
            case Verdict.FAIL if judgement.evidence.exposed:
                return steps.GateFailed(judgement=judgement)
            case Verdict.FAIL:
                return steps.RefusedByDevices(judgement=judgement)
            case Verdict.PASS if active.state.status is Status.RUNNING:
                return self._onward(active, judgement, by_hand=False)
            case Verdict.PASS | Verdict.INCONCLUSIVE:
                wave = active.state.open_wave
                before = None if wave is None else wave.judgement
                unchanged = (
                    before is not None
                    and before.reason == judgement.reason
                    and before.at <= judgement.at  # False after the clock was set back
                )
                if unchanged or judgement.verdict is Verdict.PASS:
                    return None
                return steps.WaitReasonChanged(judgement=judgement)

    def _onward(self, active: ActiveRollout, judgement: Judgement, *, by_hand: bool) -> Event:
        openings = plan.next_openings(active, self._fleet)
        if plan.leads_on(active, openings):
            return steps.Advanced(judgement=judgement, openings=openings, by_hand=by_hand)
        return steps.Finished(
            judgement=judgement,
            openings=openings,
            by_hand=by_hand,
            rows=len(self._fleet),
            bake=bake.begin(active, openings, judgement.at),
        )
