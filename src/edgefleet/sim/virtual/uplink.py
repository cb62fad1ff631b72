"""Check-ins of active devices, over links that may lose, duplicate and reorder them."""

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.protocol.device import CheckIn, CheckInAnswer
from edgefleet.sim.limits import ANSWER_TIMEOUT_S
from edgefleet.sim.load.hub_api import Failed
from edgefleet.sim.virtual.active_device import ActiveDevice
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.event_queue import ANSWERED, ARRIVES
from edgefleet.sim.virtual.one_model_agent import in_protocol_2


class Uplink:
    """The links of all devices."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def send(self, live: ActiveDevice, effect: do.SendCheckIn) -> None:
        environment, check_in = self._environment, effect.check_in
        if live.one_model:
            check_in = in_protocol_2(check_in, live.state)
        if not environment.facts.up(live.row, environment.now):
            self._unanswered(live, check_in, "unreachable")
        elif environment.rough and not environment.facts.healed:
            self._send_roughly(live, check_in)
        else:
            self._ask(live, check_in, waits=True)

    def arrive(self, live: ActiveDevice, payload: tuple[CheckIn, bool]) -> None:
        """Deliver a check-in to the hub. The payload is that of ``Due.ARRIVES``."""
        check_in, waits = payload
        environment = self._environment
        loss = environment.scenario.faults.loss
        if waits and environment.draw() < loss and not environment.facts.healed:
            environment.suffered["loss"] += 1
            environment.hub.check_in(live.rows, check_in, environment.now)
            self._unanswered(live, check_in, "timeout")
        else:
            self._ask(live, check_in, waits=waits)

    def _send_roughly(self, live: ActiveDevice, check_in: CheckIn) -> None:
        """Send over a link that loses, duplicates and reorders messages."""
        environment = self._environment
        faults, draw, put = environment.scenario.faults, environment.draw, environment.queue.put
        if draw() < faults.loss:
            environment.suffered["loss"] += 1
            self._unanswered(live, check_in, "timeout")
            return
        delay_s = 0.02
        if draw() < faults.reordering:
            environment.suffered["reordering"] += 1
            delay_s += 20.0 * draw()
        if delay_s > ANSWER_TIMEOUT_S:
            self._unanswered(live, check_in, "timeout")
        put(environment.now + delay_s, ARRIVES, live, (check_in, delay_s <= ANSWER_TIMEOUT_S))
        if draw() < faults.doubling:
            environment.suffered["doubling"] += 1
            put(environment.now + delay_s + 5.0 * draw(), ARRIVES, live, (check_in, False))

    def _ask(self, live: ActiveDevice, check_in: CheckIn, *, waits: bool) -> None:
        environment = self._environment
        answers = environment.hub.check_in(live.rows, check_in, environment.now)
        if not waits:
            return
        delay_s = 0.05 + 0.2 * environment.draw()
        events = [(self._event(check_in.seq, answer), rows) for answer, rows in answers]
        if len(events) == 1:
            environment.later(live, delay_s, events[0][0])
        else:
            environment.queue.put(environment.now + delay_s, ANSWERED, live, events)

    def _event(self, seq: int, answer: CheckInAnswer | Failed) -> Event:
        draw = self._environment.draw()
        if isinstance(answer, Failed):
            return happened.CheckInFailed(
                seq=seq, code=answer.code, draw=draw, next_seq=answer.next_seq
            )
        return happened.CheckInAnswered(seq=seq, answer=answer, draw=draw)

    def _unanswered(self, live: ActiveDevice, check_in: CheckIn, code: str) -> None:
        event = happened.CheckInFailed(seq=check_in.seq, code=code, draw=self._environment.draw())
        self._environment.later(live, ANSWER_TIMEOUT_S, event)
