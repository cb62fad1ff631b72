"""Check-ins of busy devices, over links that may lose, double and reorder them."""

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
    """Every device's way to the hub. ``previous`` says what older agents say in place of theirs."""

    def __init__(self, outside: Outside, previous: Previous) -> None:
        self._outside = outside
        self._previous = previous

    def send(self, live: Live, effect: do.SendCheckIn) -> None:
        outside = self._outside
        said = self._previous.said(live, effect.check_in)
        if not outside.facts.up(live.row, outside.now):
            self._unanswered(live, said, "unreachable")
        elif outside.rough and not outside.facts.healed:
            self._send_roughly(live, said)
        else:
            self._ask(live, said, waits=True)

    def arrive(self, live: Live, payload: tuple[CheckIn, bool]) -> None:
        """What a rough link let through is at the hub; the payload is that of ``Due.ARRIVES``."""
        said, waits = payload
        outside = self._outside
        loss = outside.scenario.faults.loss
        if waits and outside.draw() < loss and not outside.facts.healed:
            outside.suffered["loss"] += 1
            outside.hub.check_in(live.rows, said, outside.now)
            self._unanswered(live, said, "timeout")
        else:
            self._ask(live, said, waits=waits)

    def _send_roughly(self, live: Live, said: CheckIn) -> None:
        """Over a link that loses, doubles and reorders."""
        outside = self._outside
        faults, draw, put = outside.scenario.faults, outside.draw, outside.agenda.put
        if draw() < faults.loss:
            outside.suffered["loss"] += 1
            self._unanswered(live, said, "timeout")
            return
        delay_s = 0.02
        if draw() < faults.reordering:
            outside.suffered["reordering"] += 1
            delay_s += 20.0 * draw()
        if delay_s > ANSWER_TIMEOUT_S:
            self._unanswered(live, said, "timeout")
        put(outside.now + delay_s, ARRIVES, live, (said, delay_s <= ANSWER_TIMEOUT_S))
        if draw() < faults.doubling:
            outside.suffered["doubling"] += 1
            put(outside.now + delay_s + 5.0 * draw(), ARRIVES, live, (said, False))

    def _ask(self, live: Live, said: CheckIn, *, waits: bool) -> None:
        outside = self._outside
        answers = outside.hub.check_in(live.rows, said, outside.now)
        if not waits:
            return
        delay_s = 0.05 + 0.2 * outside.draw()
        heard = [(self._heard(said.seq, answer), rows) for answer, rows in answers]
        if len(heard) == 1:
            outside.later(live, delay_s, heard[0][0])
        else:
            outside.agenda.put(outside.now + delay_s, ANSWERED, live, heard)

    def _heard(self, seq: int, answer: CheckInAnswer | Failed) -> Event:
        draw = self._outside.draw()
        if isinstance(answer, Failed):
            return happened.CheckInFailed(
                seq=seq, code=answer.code, draw=draw, next_seq=answer.next_seq
            )
        return happened.CheckInAnswered(seq=seq, answer=answer, draw=draw)

    def _unanswered(self, live: Live, said: CheckIn, code: str) -> None:
        event = happened.CheckInFailed(seq=said.seq, code=code, draw=self._outside.draw())
        self._outside.later(live, ANSWER_TIMEOUT_S, event)
