"""The ledger: a report counts once, and the order of reports does not matter."""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.evidence.ledger import EXCLUDED, DeviceStanding, Ledger, standing_of
from edgefleet.rollout.limits import REASONS_PER_ROLLOUT
from support.plans import COURSE, outcome

Report = tuple[int, OutcomeKind, int]
REPORTS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(list(OutcomeKind)), st.integers(1, 3)),
    max_size=90,
    unique=True,
)


def of_attempt(kind: OutcomeKind, attempt: int, reason: str = "") -> Outcome:
    sent = outcome("ro", "1", kind, reason=reason)
    return msgspec.structs.replace(sent, id=f"{kind}-{attempt}", attempt=attempt)


def tally(reports: list[Report]) -> tuple[object, ...]:
    ledger = Ledger(3, COURSE)
    for row, kind, attempt in reports:
        ledger.record(row, of_attempt(kind, attempt, f"{kind} {attempt} {row}"), row % 3)
    return (
        [ledger.count(standing) for standing in DeviceStanding],
        ledger.exposed,
        [ledger.exposed_up_to(wave) for wave in range(3)],
        ledger.reasons.counts(),
        [ledger.standing(row) for row in range(31)],
    )


@given(REPORTS, st.randoms(use_true_random=False))
def test_reports_in_another_order_and_again_give_the_same_counts(
    reports: list[Report], chance: random.Random
):
    again = reports + chance.choices(reports, k=20) if reports else []
    chance.shuffle(again)
    assert tally(again) == tally(reports)


@given(REPORTS)
def test_the_counts_are_those_of_the_standings(reports: list[Report]):
    ledger = Ledger(1, COURSE)
    for row, kind, attempt in reports:
        ledger.record(row, of_attempt(kind, attempt), 0)
    rows = np.arange(31)
    for standing in DeviceStanding:
        if standing is not DeviceStanding.NONE:
            found = ledger.rows(standing)
            assert ledger.count(standing) == len(found)
            assert (ledger.standings(rows) == standing).sum() == len(found)
    assert ledger.exposed == ledger.exposed_mask(31).sum() == ledger.exposed_up_to(0)


def record(ledger: Ledger, *kinds: OutcomeKind) -> list[bool]:
    return [ledger.record(0, outcome("ro", "1", kind), 0) is not None for kind in kinds]


def test_the_same_report_twice_changes_nothing():
    ledger = Ledger(1, COURSE)
    assert record(ledger, OutcomeKind.CONFIRMED, OutcomeKind.CONFIRMED) == [True, False]
    assert (ledger.count(DeviceStanding.HEALTHY), ledger.version) == (1, 1)


@pytest.mark.parametrize(
    ("kinds", "standing", "exposed"),
    [
        ([], DeviceStanding.NONE, 0),
        ([OutcomeKind.DEFERRED], DeviceStanding.DEFERRED, 0),
        ([OutcomeKind.DEFERRED, OutcomeKind.TRIAL_STARTED], DeviceStanding.TRIAL, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_STARTED], DeviceStanding.HEALTHY, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.REVERTED], DeviceStanding.REVERTED, 1),
        ([OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED], DeviceStanding.FAILED, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED], DeviceStanding.FAILED, 1),
        ([OutcomeKind.REFUSED], DeviceStanding.REFUSED, 0),
        ([OutcomeKind.TRIAL_STARTED, OutcomeKind.REFUSED], DeviceStanding.REFUSED, 1),
    ],
)
def test_where_reports_lead(kinds: list[OutcomeKind], standing: DeviceStanding, exposed: int):
    ledger = Ledger(1, COURSE)
    record(ledger, *kinds)
    assert (ledger.standing(0), ledger.exposed) == (standing, exposed)


def test_every_set_of_reports_has_a_standing():
    assert {standing_of(bits) for bits in range(64)} == set(DeviceStanding)


def test_reasons_are_bounded():
    ledger = Ledger(1, COURSE)
    for row in range(REASONS_PER_ROLLOUT + 10):
        sent = Outcome(
            id="x", rollout="ro", release="1", kind=OutcomeKind.REFUSED, at=0, reason=f"r{row}"
        )
        ledger.record(row, sent, None)
    assert len(ledger.reasons.counts()) == REASONS_PER_ROLLOUT + 1
    assert ledger.reasons.counts()["other"] == 10


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_whatever_follows_an_activation_says_that_there_was_one(kind: OutcomeKind):
    """The first report may be lost with the spool. The device still counts as exposed."""
    ledger = Ledger(1, COURSE)
    ledger.record(0, outcome("ro", "1", kind), 0)
    never_ran = kind in {
        OutcomeKind.REFUSED,
        OutcomeKind.DEFERRED,
        OutcomeKind.WITHDRAWN,
    }
    assert (ledger.exposed, ledger.exposed_up_to(0)) == ((0, 0) if never_ran else (1, 1))


@pytest.mark.parametrize("withdrawn_first", [False, True])
def test_a_withdrawn_start_leaves_no_place_and_no_release(withdrawn_first: bool):
    ledger = Ledger(1, COURSE)
    reports = [
        of_attempt(OutcomeKind.TRIAL_STARTED, 4),
        of_attempt(OutcomeKind.WITHDRAWN, 4),
    ]
    for one in reversed(reports) if withdrawn_first else reports:
        ledger.record(0, one, 0)
    assert ledger.standing(0) is DeviceStanding.NONE
    assert (ledger.count(DeviceStanding.TRIAL), ledger.exposed, ledger.exposed_up_to(0)) == (
        0,
        0,
        0,
    )
    assert not ledger.have(np.arange(1), EXCLUDED).any()


def test_a_start_after_a_withdrawn_one_counts():
    ledger = Ledger(1, COURSE)
    for kind, attempt in (
        (OutcomeKind.TRIAL_STARTED, 4),
        (OutcomeKind.WITHDRAWN, 4),
        (OutcomeKind.TRIAL_STARTED, 7),
    ):
        assert ledger.record(0, of_attempt(kind, attempt), 0) is not None
    assert (ledger.standing(0), ledger.exposed) == (DeviceStanding.TRIAL, 1)


def test_a_start_of_an_agent_that_numbers_none_counts():
    ledger = Ledger(1, COURSE)
    assert ledger.record(0, of_attempt(OutcomeKind.TRIAL_STARTED, 0), 0) is not None
    assert ledger.standing(0) is DeviceStanding.TRIAL
