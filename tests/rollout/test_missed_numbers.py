"""Numbers that a device skipped: each is late once, in bounded memory."""

import pytest

from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import Answered, OutOfSequence, begin
from edgefleet.rollout.fleet import missed_numbers
from edgefleet.rollout.fleet.missed_numbers import MissedNumbers
from support.fleets import memory_hub


def test_a_skipped_number_is_late_once() -> None:
    missed = MissedNumbers()
    missed.note(3, 5, 8)
    missed.note(3, 8, 10)
    assert [missed.consume(3, seq) for seq in (5, 6, 6, 7, 8, 9, 10)] == [
        False, True, False, True, False, True, False,
    ]  # fmt: skip
    missed.note(3, 10, 12)
    missed.forget(3)
    assert not missed.consume(3, 11)


def test_the_last_skipped_numbers_of_the_last_devices_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(missed_numbers, "_DEVICES", 2)
    missed = MissedNumbers()
    missed.note(0, 1, 1 << 40)
    assert not missed.consume(0, (1 << 40) - 9)
    assert missed.consume(0, (1 << 40) - 8)
    missed.note(1, 1, 3)
    missed.note(2, 1, 3)
    assert [missed.consume(row, seq) for row, seq in ((0, (1 << 40) - 1), (1, 2), (2, 2))] == [
        False, True, True,
    ]  # fmt: skip


def said(seq: int, run: int = 0) -> CheckIn:
    return CheckIn(protocol=PROTOCOL, seq=seq, full=seq == 1, run=run)


def test_a_late_check_in_of_another_run_is_refused_as_before() -> None:
    """It may be a second agent with the credential of the first."""
    hub = memory_hub(1, "1")
    for one in (said(1, run=7), said(5)):
        assert begin(hub.engine, 0, one, hub.now) == Answered()
    assert begin(hub.engine, 0, said(4, run=7), hub.now) == OutOfSequence(6, is_late=True)
    assert begin(hub.engine, 0, said(3), hub.now) == OutOfSequence(6, is_late=True)
    assert begin(hub.engine, 0, said(3), hub.now) == OutOfSequence(6)
    assert begin(hub.engine, 0, said(2, run=9), hub.now) == OutOfSequence(6)
    assert begin(hub.engine, 0, said(2), hub.now) == OutOfSequence(6), "it may be copied now"
    assert begin(hub.engine, 0, said(6), hub.now) == Answered()


def test_an_agent_that_has_not_named_its_run_is_refused_as_before() -> None:
    """Two of them take turns after a restart of the hub."""
    hub = memory_hub(1, "1")
    for one in (said(1), said(5)):
        assert begin(hub.engine, 0, one, hub.now) == Answered()
    assert begin(hub.engine, 0, said(4), hub.now) == OutOfSequence(6)
