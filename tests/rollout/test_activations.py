"""The order of starts: buckets and episodes are the same after any order of replay."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import GateSpec, TakenBack
from edgefleet.rollout.evidence.activations import Activations, Course
from edgefleet.rollout.evidence.detector import Grid
from edgefleet.rollout.evidence.late import Late
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.evidence.taken_parts import TakenParts
from edgefleet.rollout.fleet.label_values import LabelValues
from support.plans import START, outcome

PAUSE_S = 60.0
COURSE = Course(grid=Grid(first=4, most=16, devices=60), since=START, pause_s=PAUSE_S)
STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
FAILED, WITHDRAWN = OutcomeKind.TRIAL_FAILED, OutcomeKind.WITHDRAWN
NOBODY = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Sent:
    row: int
    kind: OutcomeKind
    attempt: int
    at: float

    @property
    def outcome(self) -> Outcome:
        return msgspec.structs.replace(outcome("ro", "1", self.kind), attempt=self.attempt)


def life(row: int, at: float, end: int) -> list[Sent]:
    """The reports of one device: a start, perhaps withdrawn and begun again, and its end."""
    sent = [Sent(row, STARTED, 1, at)]
    if end == 3:
        return [*sent, Sent(row, WITHDRAWN, 1, at + 1)]
    if end == 4:
        sent += [Sent(row, WITHDRAWN, 1, at + 1), Sent(row, STARTED, 2, at + 5)]
    if end:
        sent.append(Sent(row, FAILED if end == 2 else CONFIRMED, 2 if end == 4 else 1, at + 9))
    return sent


LIVES = st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 4)), min_size=1, max_size=60).map(
    lambda lives: [
        sent for row, (at, end) in enumerate(lives) for sent in life(row, START + at, end)
    ]
)


def told(reports: list[Sent], *, looks: int = 0) -> Ledger:
    ledger = Ledger(1, COURSE)
    for number, sent in enumerate(reports):
        ledger.record(sent.row, sent.outcome, 0, sent.at)
        if looks and number % looks == 0:
            shape(ledger)
    return ledger


def shape(ledger: Ledger) -> tuple[object, ...]:
    """All that the gate and the exposure limit read from the order of starts."""
    late = Late(ledger)
    late.arrange(0.05)
    order = ledger.activations
    return (
        order.begun().tolist(),
        order.log_weights().tolist(),
        order.episode_key,
        ledger.healthy_since_episode,
        order.is_paused(START + 1000 + PAUSE_S / 2),
        late.failures(NOBODY),
        late.brakes,
    )


@given(LIVES, st.randoms(use_true_random=False), st.integers(0, 5))
def test_replay_in_any_order_gives_the_same_buckets(
    reports: list[Sent], chance: random.Random, looks: int
) -> None:
    in_time = sorted(reports, key=lambda sent: sent.at)
    shuffled = [*reports, *chance.choices(reports, k=5)]
    chance.shuffle(shuffled)
    wanted = shape(told(in_time))
    assert shape(told(in_time, looks=2)) == wanted
    assert shape(told(shuffled, looks=looks)) == wanted


@given(LIVES)
def test_every_device_that_began_is_in_one_bucket(reports: list[Sent]) -> None:
    ledger = told(reports)
    begun = ledger.activations.begun()
    assert begun.sum() == ledger.exposed
    rows = np.flatnonzero(ledger.exposed_mask(60))
    assert ledger.activations.count(rows).tolist() == begun.tolist()
    recent = ledger.activations.keys(rows) >= ledger.activations.episode_key
    healthy = ledger.standings(rows) == DeviceStanding.HEALTHY
    assert ledger.healthy_since_episode == (recent & healthy).sum()


def begin(order: Activations, count: int, at: float, *, first: int = 0) -> None:
    for row in range(first, first + count):
        order.begin(row, START + at + 0.05 + 0.3 * (row - first))


def made() -> Activations:
    order = Activations(COURSE)
    order.grow(1024)
    return order


def test_buckets_are_filled_one_after_another() -> None:
    order = made()
    begin(order, 9, 0.0)
    assert order.begun().tolist() == [2, 2, 2, 2, 1]


def test_devices_that_begin_at_one_moment_share_a_bucket() -> None:
    order = made()
    order.begin_all(np.arange(50), START)
    assert order.begun().tolist() == [50]


def test_a_pause_without_a_start_begins_an_episode_and_a_bucket() -> None:
    order = made()
    begin(order, 3, 0.0)
    assert not order.is_paused(START + PAUSE_S)
    assert order.is_paused(START + PAUSE_S + 1)
    begin(order, 3, PAUSE_S - 1, first=3)
    assert (order.begun().tolist(), order.episode_key) == ([2, 2, 2], 0)
    begin(order, 1, 2 * PAUSE_S + 1, first=6)
    assert order.begun().tolist() == [2, 2, 2, 1]
    assert order.time(order.episode_key) == pytest.approx(START + 2 * PAUSE_S + 1, abs=0.1)
    assert (order.episode_of(2), order.episode_of(3)) == (0, order.episode_key)
    assert order.log_weights()[3] > order.log_weights()[2]


def test_a_wave_that_opens_ends_the_pause() -> None:
    order = made()
    begin(order, 3, 0.0)
    order.arrange(replace(COURSE, opened=(START, START + 200.0)))
    assert not order.is_paused(START + 230.0)
    begin(order, 1, 230.0, first=3)
    assert order.episode_key == 0
    assert order.is_paused(START + 300.0)
    order.arrange(replace(COURSE, opened=(START,)))
    assert order.episode_key


def test_the_pause_ends_when_the_devices_before_it_are_forgotten() -> None:
    order = made()
    begin(order, 1, 0.0)
    begin(order, 1, 100.0, first=1)
    assert order.episode_key
    order.end(0)
    assert (order.episode_key, order.begun().tolist()) == (0, [1])


def test_devices_that_an_episode_lost_its_release_with_are_no_evidence_any_more() -> None:
    reports = [sent for row in range(20) for sent in life(row, START + row, 1)]
    reports += [sent for row in range(20, 30) for sent in life(row, START + 200 + row, 2)]
    ledger = told(sorted(reports, key=lambda sent: sent.at))
    late = Late(ledger)
    late.arrange(0.05)
    before = late.failures(NOBODY)
    assert (before.bad, before.before) == (10, 20)
    assert before.episode_since == pytest.approx(START + 220, abs=0.1)
    assert late.is_sure(GateSpec())
    late.arrange(0.05, taken(ledger, before.episode_since, START + 240))
    late.update(NOBODY)
    assert not late.is_sure(GateSpec())


def taken(ledger: Ledger, since: float | None, until: float) -> TakenParts:
    assert since is not None
    return TakenParts((TakenBack(since=since, until=until),), ledger, no_labels)


def no_labels(key: str, values: Sequence[str]) -> LabelValues:
    raise AssertionError(key, values)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_wave_that_opens_in_a_pause_begins_no_episode_also_after_a_restart(restarted: bool):
    opened = replace(COURSE, opened=(START, START + 2 * PAUSE_S))
    ledger = Ledger(2, opened if restarted else COURSE)
    ledger.activations.arrange(opened)
    for row, at in ((0, START), (1, START + 2 * PAUSE_S + 1)):
        ledger.record(row, outcome("ro", "2", OutcomeKind.TRIAL_STARTED), None, at)
    assert ledger.activations.episode_key == 0
