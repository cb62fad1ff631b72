"""The time in queue bounds the work, and the interval stretches while check-ins wait."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import Overloaded
from edgefleet.http1.message import Reply
from edgefleet.hub import checkin_handler
from edgefleet.hub.limits import (
    OVERLOAD_RETRY_S,
    STRETCH_AFTER_S,
    STRETCHED_FOR_S,
    WAITED_AT_MOST_S,
)
from edgefleet.hub.queue_time import QueueTime
from edgefleet.protocol.device import CheckInAnswer, OutcomeKind
from edgefleet.protocol.wire import Problem, decode
from support.hub_inside import (
    ManualClock,
    SlowDisk,
    check_in,
    enrol_inside,
    hub_inside,
    open_rollout,
    outcome,
    request_of,
    stored_outcomes,
)


class Turns:
    """Turns of a loop that the test ends."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []

    def soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def end(self) -> None:
        calls, self._soon = self._soon, []
        for call in calls:
            call()


def queue(clock: ManualClock, turns: Turns, offline_s: float = 180.0) -> QueueTime:
    return QueueTime(clock, interval_s=60.0, offline_s=offline_s, soon=turns.soon)


def test_a_request_has_waited_since_its_turn_began() -> None:
    turns = Turns()
    time = queue(ManualClock(), turns)
    assert [time.waited_s(now) for now in (10.0, 10.25, 11.0)] == [0.0, 0.25, 1.0]
    turns.end()
    assert time.waited_s(11.5) == 0.0


def test_a_request_that_waited_too_long_is_refused_with_a_pause() -> None:
    time = queue(ManualClock(), Turns())
    time.check(WAITED_AT_MOST_S)
    with pytest.raises(Overloaded) as refused:
        time.check(WAITED_AT_MOST_S + 0.01)
    assert (refused.value.reason, refused.value.retry_after_s) == ("deadline", OVERLOAD_RETRY_S)


@pytest.mark.parametrize(
    ("offline_s", "stretched"), [(180.0, 90.0), (600.0, 240.0), (60.0, 60.0), (400.0, 200.0)]
)
def test_the_interval_stretches_while_check_ins_wait(offline_s: float, stretched: float) -> None:
    """To four times, and never so far that a device counts as offline."""
    clock, turns = ManualClock(), Turns()
    time, now = queue(clock, turns, offline_s), clock.monotonic()
    time.waited_s(now)
    time.waited_s(now + STRETCH_AFTER_S)
    assert time.interval_s == 60.0
    time.waited_s(now + STRETCH_AFTER_S + 0.01)
    assert time.interval_s == stretched
    clock.time += STRETCHED_FOR_S
    assert time.interval_s == stretched
    clock.time += 1
    assert time.interval_s == 60.0


def test_a_report_that_waited_is_refused_before_its_work_and_a_heartbeat_is_not(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            first, second = await enrol_inside(hub, 2)
            rollout = await open_rollout(hub, tmp_path / "r")
            await asyncio.sleep(0)
            hub.device_plane(request_of(first, first.said()))
            clock.time += WAITED_AT_MOST_S + 1  # in the same turn
            said = second.said(outcome("o1", OutcomeKind.CONFIRMED, rollout))
            refused = hub.device_plane(request_of(second, said))
            assert isinstance(refused, Reply)
            assert decode(refused.body, Problem).code == "overloaded"
            assert dict(refused.headers) == {"Retry-After": str(OVERLOAD_RETRY_S)}
            heartbeat = hub.device_plane(request_of(first, first.said()))
            assert isinstance(heartbeat, Reply)
            assert decode(heartbeat.body, CheckInAnswer).interval_s == 90.0
            assert stored_outcomes(tmp_path / "data") == []
            await asyncio.sleep(0)  # the next turn: the same number is accepted
            assert (await check_in(hub, second, said)).status == 200
            assert stored_outcomes(tmp_path / "data") == [(1, "o1")]

    asyncio.run(main())


def test_a_report_is_refused_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()

    async def main() -> None:
        async with hub_inside(tmp_path / "data", open_store=disk.open_store) as hub:
            devices = await enrol_inside(hub, 3)
            rollout = await open_rollout(hub, tmp_path / "r")
            first, second, third = devices
            async with disk.blocked():
                waiting = asyncio.ensure_future(
                    check_in(hub, first, first.said(outcome("o1", OutcomeKind.CONFIRMED, rollout)))
                )
                await asyncio.sleep(0.01)
                monkeypatch.setattr(checkin_handler, "WAITED_AT_MOST_S", 0.0)
                said = second.said(outcome("o2", OutcomeKind.CONFIRMED, rollout))
                refused = await check_in(hub, second, said)
                assert (refused.status, dict(refused.headers)) == (
                    503,
                    {"Retry-After": str(OVERLOAD_RETRY_S)},
                )
                assert (await check_in(hub, third, third.said())).status == 200
            monkeypatch.undo()
            assert (await waiting).status == 200
            assert (await check_in(hub, second, said)).status == 200
            assert stored_outcomes(tmp_path / "data") == [(0, "o1"), (1, "o2")]

    asyncio.run(main())


def test_a_check_in_that_was_merely_late_is_no_replay(tmp_path: Path) -> None:
    """It took longer than the next one of its device, as when the device gave up and tried again."""

    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            (device,) = await enrol_inside(hub, 1)
            rollout = await open_rollout(hub, tmp_path / "r")
            assert (await check_in(hub, device, device.said())).status == 200
            late = device.said(outcome("o1", OutcomeKind.CONFIRMED, rollout))
            newer = replace(device.said(outcome("o1", OutcomeKind.CONFIRMED, rollout)), run=5)
            answer = await check_in(hub, device, newer)
            assert decode(answer.body, CheckInAnswer).acked == ("o1",)
            seen = hub.device(device.name)

            found = await check_in(hub, device, late)
            assert (found.status, decode(found.body, Problem).code) == (503, "overloaded")
            assert dict(found.headers) == {"Retry-After": str(OVERLOAD_RETRY_S)}
            assert hub.device(device.name) == seen
            again = await check_in(hub, device, late)  # now it is a replay
            assert (again.status, decode(again.body, Problem).next_seq) == (409, device.seq + 1)
            assert stored_outcomes(tmp_path / "data") == [(0, "o1")]
            calm = await check_in(hub, device, device.said())
            assert decode(calm.body, CheckInAnswer).interval_s == 60.0  # the hub is not overloaded

    asyncio.run(main())
