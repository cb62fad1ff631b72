"""Copied credentials are recognised, and a device alone is never taken for two."""

import random

import pytest

from edgefleet.rollout.fleet.boots import RUNS, Boots

KEPT_S = 180.0


class Hub:
    """The sequence numbers and runs of one row."""

    def __init__(self) -> None:
        self.boots = Boots(KEPT_S)
        self.seq = 0

    def check_in(self, run: int, seq: int, now: float) -> int:
        """The next number of the device, after a check-in and its repeat if it was refused."""
        if seq <= self.seq:
            self.boots.refused(7, run, now)
            seq = self.seq + 1
        self.seq = seq
        self.boots.accepted(7, run, now)
        return seq + 1

    @property
    def is_copied(self) -> bool:
        return self.boots.is_copied(7)


@pytest.mark.parametrize("ahead", [0, 50])
@pytest.mark.parametrize("devices", [2, 3, RUNS])
def test_copies_are_recognised_within_three_rounds(devices: int, ahead: int) -> None:
    """The first one goes on with its numbers. The others begin where the disk was copied."""
    hub = Hub()
    runs = list(range(11, 11 + devices))
    seqs = dict.fromkeys(runs, 1)
    for at in range(5):
        seqs[11] = hub.check_in(11, seqs[11], float(at))
    for run in runs[1:]:
        seqs[run] = seqs[11] + ahead
    for number in range(3):
        for run in runs:
            seqs[run] = hub.check_in(run, seqs[run], 10.0 * number + run)
    assert hub.is_copied
    assert {run for run, _ in hub.boots.runs(7)} == set(runs)
    assert hub.boots.copied_rows.tolist() == [7]


def test_the_mark_ends_once_one_device_is_alone() -> None:
    hub = Hub()
    seqs = {1: 1, 2: 1}
    for number in range(6):
        run = number % 2 + 1
        seqs[run] = hub.check_in(run, seqs[run], float(number))
    assert hub.is_copied
    for at in range(10, 170, 10):
        seqs[1] = hub.check_in(1, seqs[1], float(at))
    assert hub.is_copied
    for at in range(170, 400, 10):
        seqs[1] = hub.check_in(1, seqs[1], float(at))
    assert not hub.is_copied
    assert list(hub.boots.runs(7)) == []


def test_one_device_that_restarts_is_never_taken_for_two() -> None:
    """With numbers that are kept, lost, or lost at each restart, and with late messages."""
    draw = random.Random(3)
    for _ in range(300):
        hub = Hub()
        run, seq, keeps = 1, 1, draw.random()
        for at in range(60):
            if draw.random() < 0.3:
                if draw.random() < 0.5:  # a message of the run that ended arrives late
                    late = (run, seq - 1)
                    seq = 1 if draw.random() > keeps else seq + 100
                    run += 1
                    seq = hub.check_in(run, seq, float(at))
                    hub.boots.refused(7, late[0], float(at))
                    continue
                seq = 1 if draw.random() > keeps else seq + 100
                run += 1
            seq = hub.check_in(run, seq, float(at))
            assert not hub.is_copied
