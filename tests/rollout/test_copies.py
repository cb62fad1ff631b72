"""Copied devices are recognised, and a device alone is never taken for two."""

import random

import pytest

from edgefleet.rollout.fleet.copies import OLD_S, REFUSALS, RUNS, Copies

ROW = 7


class Hub:
    """The sequence numbers and runs of one row."""

    def __init__(self) -> None:
        self.copies = Copies()
        self.seq = 0
        self.now = 0.0
        self.heard: set[int] = set()  # runs that need not name themselves again
        self.seqs: dict[int, int] = {}  # the next number of each run

    def check_in(self, run: int, seq: int) -> int:
        """The next number of the device, after a check-in and its repeat if it was refused.

        The agent names its run in the first one and after a refusal, as ``agent.link`` does.
        """
        self.now += 1
        named = 0 if run in self.heard else run
        if seq <= self.seq:
            self.copies.refused(ROW, named, self.now - 1)
            seq, named = self.seq + 1, run
        self.seq = seq
        self.heard.add(run)
        self.copies.accepted(ROW, named, self.now)
        return seq + 1

    def go_on(self, run: int, times: int = 1) -> None:
        """This run checks in, with the number after its last one."""
        for _ in range(times):
            self.seqs[run] = self.check_in(run, self.seqs.get(run, 1))

    def take_turns(self, runs: list[int], rounds: int) -> None:
        for _ in range(rounds):
            for run in runs:
                self.go_on(run)

    @property
    def is_copied(self) -> bool:
        return self.copies.is_copied(ROW)

    @property
    def runs(self) -> list[int]:
        return [run for run, _ in self.copies.runs(ROW)]


@pytest.mark.parametrize("ahead", [0, 50])
@pytest.mark.parametrize("devices", [2, 3, 100])
def test_copies_are_recognised_within_four_rounds(devices: int, ahead: int) -> None:
    """The first one goes on with its numbers. The others begin where the disk was copied."""
    hub, draw = Hub(), random.Random(devices)
    runs = draw.sample(range(1, 1 << 32), devices)
    seqs = dict.fromkeys(runs, 1)
    for _ in range(5):
        seqs[runs[0]] = hub.check_in(runs[0], seqs[runs[0]])
    for run in runs[1:]:
        seqs[run] = seqs[runs[0]] + ahead
    for _ in range(4):
        for run in runs:
            seqs[run] = hub.check_in(run, seqs[run])
    assert hub.is_copied
    assert hub.copies.rows.tolist() == [ROW]
    assert set(hub.runs) <= set(runs)
    assert len(hub.runs) == min(devices, RUNS)
    if devices <= RUNS:
        assert hub.runs == runs[::-1]  # the last check-in first


def test_a_copy_that_is_always_overtaken_is_recognised_by_its_refusals() -> None:
    hub = Hub()
    hub.go_on(1, 5)
    for count in range(REFUSALS):
        assert not hub.is_copied, count
        hub.copies.refused(ROW, 2, hub.now)
        hub.go_on(1)
    assert hub.is_copied
    assert sorted(hub.runs) == [1, 2]


def test_refusals_of_a_run_that_checks_in_then_do_not_add_up() -> None:
    hub = Hub()
    hub.go_on(1, 5)
    for run in range(2, 40):  # an agent that loses its number at each restart
        hub.copies.refused(ROW, run, hub.now)
        hub.copies.refused(ROW, run, hub.now)
        hub.go_on(run)
        hub.copies.refused(ROW, run - 1, hub.now)  # a late one of the run before
        assert not hub.is_copied


def test_one_run_that_returns_once_is_not_enough() -> None:
    """A check-in of a run that ended may arrive late, after its successor lost its number."""
    hub = Hub()
    hub.take_turns([1], 3)
    second = hub.check_in(2, 1)
    hub.heard.discard(1)  # the late one was sent after an answer was lost, so it names its run
    hub.check_in(1, hub.seq + 1)
    for _ in range(20):
        second = hub.check_in(2, second)
    assert not hub.is_copied


def test_one_device_that_restarts_is_never_taken_for_two() -> None:
    """With numbers that are kept, lost, or lost at each restart, and with late messages."""
    draw = random.Random(3)
    for _ in range(300):
        hub = Hub()
        run, seq, keeps = 1, 1, draw.random()
        for _ in range(60):
            if draw.random() < 0.3:
                late = (run, seq - 1)
                seq = 1 if draw.random() > keeps else seq + 100
                run += 1
                if draw.random() < 0.5:  # a message of the run that ended arrives late
                    seq = hub.check_in(run, seq)
                    assert late[1] <= hub.seq
                    hub.copies.refused(ROW, late[0], hub.now)
                    continue
            if draw.random() < 0.2:  # its answer is lost: the agent goes on with the next number
                hub.check_in(run, seq)
                seq += 1
            seq = hub.check_in(run, seq)
            assert not hub.is_copied


def test_many_restarts_hide_a_copy_for_a_day_at_most() -> None:
    hub = Hub()
    for run in range(1, 3 * RUNS):
        hub.check_in(run, 1)
    hub.take_turns([2**31, 2**31 + 1], 5)
    assert not hub.is_copied
    hub.now += OLD_S
    hub.take_turns([2**31, 2**31 + 1], 5)
    assert hub.is_copied


def test_it_stays_copied_until_it_is_cleared_also_after_a_restart_of_the_hub() -> None:
    hub = Hub()
    hub.take_turns([1, 2], 4)
    hub.go_on(1, 1000)
    assert hub.is_copied
    stored = {row: dict(hub.copies.runs(row)) for row in hub.copies.changed}
    hub.copies = Copies()
    hub.copies.load(stored)
    assert hub.is_copied
    assert hub.runs == [1, 2]
    hub.copies.clear(ROW)
    assert not hub.is_copied
    assert hub.runs == []
    assert ROW in hub.copies.changed
    hub.go_on(1, 2)
    hub.go_on(3, 2)  # the agent that is left is restarted
    assert not hub.is_copied


@pytest.mark.parametrize("first", [1, 2])
def test_a_cleared_device_is_copied_again_once_a_known_run_returns(first: int) -> None:
    hub = Hub()
    hub.take_turns([1, 2], 4)
    hub.copies.clear(ROW)
    hub.go_on(first, 5)
    assert not hub.is_copied
    hub.go_on(3 - first)
    hub.go_on(first)
    assert hub.is_copied


def test_agents_without_a_number_and_removed_devices_are_no_copies() -> None:
    hub = Hub()
    hub.take_turns([1, 0], 6)  # an agent of an older version has none
    assert not hub.is_copied
    hub.take_turns([1, 2], 4)
    assert hub.is_copied
    hub.copies.forget(ROW)
    assert (hub.is_copied, hub.copies.rows.tolist()) == (False, [])
