"""Simulated operators: they start rollouts, approve waves, and end what no gate decides."""

from edgefleet.protocol.rollout import Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints.approval import missing
from edgefleet.rollout.lifecycle.state import OPEN, RolloutState
from edgefleet.sim.virtual.environment import Environment

THINKS_S = 90.0  # seconds before a person approves
_UNDECIDED = {
    WaitCode.INCONCLUSIVE,
    WaitCode.NO_REQUESTS,
    WaitCode.SAMPLE,
    WaitCode.HALTED,
    WaitCode.LATE_FAILURES,
    WaitCode.ONE_SITE,
    WaitCode.PAUSED,
    WaitCode.BAKE_ALERT,
}


class Operator:
    """``verbs`` are the verbs that ended rollouts which did not end by themselves, by rollout."""

    def __init__(self, environment: Environment) -> None:
        self.verbs: dict[str, str] = {}
        self._environment = environment

    def act(self, state: RolloutState) -> None:
        """Approve if it is time, and end an undecided rollout ``person_s`` after healing.

        An alert of the bake is undecided when it has not cleared for as long.
        A planned rollout is started again: the hub crashed before it stored the start.
        """
        environment = self._environment
        hub, now = environment.hub, environment.now
        if state.status is Status.PLANNED:
            hub.command(state.id, Verb.START, now)
            return
        healed_s = now - environment.start - environment.scenario.heal_s
        person_s = environment.scenario.person_s
        if state.status is Status.RUNNING and missing(state) and now >= _agreed_at(state):
            hub.approve(state.id, f"person-{len(state.approvals) + 1}", now)
        is_open = state.status in OPEN or state.is_baking
        if healed_s < person_s or not is_open or state.id in self.verbs:
            return
        waits = hub.engine.why_rollout(state.id, now).waits
        alerts = [wait for wait in waits if wait.code is WaitCode.BAKE_ALERT]
        if any(now - (wait.since or now) < person_s for wait in alerts):
            return  # an alert may clear by itself
        if any(wait.code in _UNDECIDED for wait in waits):
            verb = Verb.REVERT if state.started_at is not None else Verb.HALT
            if hub.command(state.id, verb, now):
                self.verbs[state.id] = verb.value


def _agreed_at(state: RolloutState) -> float:
    """Time of the next person's approval."""
    wave = state.open_wave
    opened_at = state.created_at if wave is None else wave.opened_at or 0.0
    return THINKS_S + max(opened_at, *(given.at for given in state.approvals), state.created_at)
