"""Check-ins of active devices, over links that may lose, duplicate and reorder them."""

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.protocol.device import CheckIn, CheckInAnswer
from edgefleet.sim.limits import ANSWER_TIMEOUT_S
from edgefleet.sim.load.hub_api import Failed
from edgefleet.sim.virtual.active_device import Live
from edgefleet.sim.virtual.environment import Outside
from edgefleet.sim.virtual.event_queue import ANSWERED, ARRIVES
from edgefleet.sim.virtual.legacy_agent import Previous


class Uplink:
    """The links of all devices. ``previous`` translates the check-ins of older agents."""

    def __init__(self, outside: Outside, previous: Previous) -> None:
        self._outside = outside
        self._previous = previous

    def send(self, live: Live, effect: do.SendCheckIn) -> None:
        outside = self._outside
        check_in = self._previous.translate_check_in(live, effect.check_in)
        if not outside.facts.up(live.row, outside.now):
            self._unanswered(live, check_in, "unreachable")
        elif outside.rough and not outside.facts.healed:
            self._send_roughly(live, check_in)
        else:
            self._ask(live, check_in, waits=True)

    def arrive(self, live: Live, payload: tuple[CheckIn, bool]) -> None:
        """Deliver a check-in to the hub. The payload is that of ``Due.ARRIVES``."""
        check_in, waits = payload
        outside = self._outside
        loss = outside.scenario.faults.loss
        if waits and outside.draw() < loss and not outside.facts.healed:
            outside.suffered["loss"] += 1
            outside.hub.check_in(live.rows, check_in, outside.now)
            self._unanswered(live, check_in, "timeout")
        else:
            self._ask(live, check_in, waits=waits)

    def _send_roughly(self, live: Live, check_in: CheckIn) -> None:
        """Send over a link that loses, duplicates and reorders messages."""
        outside = self._outside
        faults, draw, put = outside.scenario.faults, outside.draw, outside.agenda.put
        if draw() < faults.loss:
            outside.suffered["loss"] += 1
            self._unanswered(live, check_in, "timeout")
            return
        delay_s = 0.02
        if draw() < faults.reordering:
            outside.suffered["reordering"] += 1
            delay_s += 20.0 * draw()
        if delay_s > ANSWER_TIMEOUT_S:
            self._unanswered(live, check_in, "timeout")
        put(outside.now + delay_s, ARRIVES, live, (check_in, delay_s <= ANSWER_TIMEOUT_S))
        if draw() < faults.doubling:
            outside.suffered["doubling"] += 1
            put(outside.now + delay_s + 5.0 * draw(), ARRIVES, live, (check_in, False))

    def _ask(self, live: Live, check_in: CheckIn, *, waits: bool) -> None:
        outside = self._outside
        answers = outside.hub.check_in(live.rows, check_in, outside.now)
        if not waits:
            return
        delay_s = 0.05 + 0.2 * outside.draw()
        events = [(self._event(check_in.seq, answer), rows) for answer, rows in answers]
        if len(events) == 1:
            outside.later(live, delay_s, events[0][0])
        else:
            outside.agenda.put(outside.now + delay_s, ANSWERED, live, events)

    def _event(self, seq: int, answer: CheckInAnswer | Failed) -> Event:
        draw = self._outside.draw()
        if isinstance(answer, Failed):
            return happened.CheckInFailed(
                seq=seq, code=answer.code, draw=draw, next_seq=answer.next_seq
            )
        return happened.CheckInAnswered(seq=seq, answer=answer, draw=draw)

    def _unanswered(self, live: Live, check_in: CheckIn, code: str) -> None:
        event = happened.CheckInFailed(seq=check_in.seq, code=code, draw=self._outside.draw())
        self._outside.later(live, ANSWER_TIMEOUT_S, event)
