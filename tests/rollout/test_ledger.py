"""The ledger: a report counts once, in whatever order reports come."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.ledger import Ledger, Standing, standing_of
from edgefleet.rollout.limits import REASONS_PER_ROLLOUT
from support.toy_rollout import outcome

REPORTS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(list(OutcomeKind))), max_size=60, unique=True
)


def tally(reports: list[tuple[int, OutcomeKind]]) -> tuple[object, ...]:
    ledger = Ledger(3)
    for row, kind in reports:
        ledger.record(row, outcome("ro", "1", kind, reason=f"{kind}!"), row % 3)
    return (
        [ledger.count(standing) for standing in Standing],
        ledger.exposed,
        [ledger.exposed_up_to(wave) for wave in range(3)],
        ledger.reasons,
        [ledger.standing(row) for row in range(31)],
    )


@given(REPORTS, st.randoms(use_true_random=False))
def test_reports_in_another_order_and_again_give_the_same_counts(
    reports: list[tuple[int, OutcomeKind]], chance: random.Random
):
    again = reports + chance.choices(reports, k=20) if reports else []
    chance.shuffle(again)
    assert tally(again) == tally(reports)


@given(REPORTS)
def test_the_counts_are_those_of_the_standings(reports: list[tuple[int, OutcomeKind]]):
    ledger = Ledger(1)
    for row, kind in reports:
        ledger.record(row, outcome("ro", "1", kind), 0)
    rows = np.arange(31)
    for standing in Standing:
        if standing is not Standing.NONE:
            found = ledger.rows(standing)
            assert ledger.count(standing) == len(found)
            assert (ledger.standings(rows) == standing).sum() == len(found)
    assert ledger.exposed == ledger.exposed_mask(31).sum()


def record(ledger: Ledger, *kinds: OutcomeKind) -> list[bool]:
    return [ledger.record(0, outcome("ro", "1", kind), 0) for kind in kinds]


def test_the_same_report_twice_changes_nothing():
    ledger = Ledger(1)
    assert record(ledger, OutcomeKind.CONFIRMED, OutcomeKind.CONFIRMED) == [True, False]
    assert (ledger.count(Standing.HEALTHY), ledger.version) == (1, 1)


@pytest.mark.parametrize(
    ("kinds", "standing", "exposed"),
    [
        ([], Standing.NONE, 0),
        ([OutcomeKind.DEFERRED], Standing.DEFERRED, 0),
        ([OutcomeKind.DEFERRED, OutcomeKind.TRIAL_STARTED], Standing.TRIAL, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_STARTED], Standing.HEALTHY, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.REVERTED], Standing.REVERTED, 1),
        ([OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED], Standing.FAILED, 1),
        ([OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED], Standing.FAILED, 1),
        ([OutcomeKind.REFUSED], Standing.REFUSED, 0),
        ([OutcomeKind.TRIAL_STARTED, OutcomeKind.REFUSED], Standing.REFUSED, 1),
    ],
)
def test_where_reports_lead(kinds: list[OutcomeKind], standing: Standing, exposed: int):
    ledger = Ledger(1)
    record(ledger, *kinds)
    assert (ledger.standing(0), ledger.exposed) == (standing, exposed)


def test_every_set_of_reports_has_a_standing():
    assert {standing_of(bits) for bits in range(64)} == set(Standing)


def test_reasons_are_bounded():
    ledger = Ledger(1)
    for row in range(REASONS_PER_ROLLOUT + 10):
        said = Outcome(
            id="x", rollout="ro", release="1", kind=OutcomeKind.REFUSED, at=0, reason=f"r{row}"
        )
        ledger.record(row, said, None)
    assert len(ledger.reasons) == REASONS_PER_ROLLOUT + 1
    assert ledger.reasons["other"] == 10


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_whatever_follows_an_activation_says_that_there_was_one(kind: OutcomeKind):
    """The first report may be lost with a device's spool; the device was exposed all the same."""
    ledger = Ledger(1)
    ledger.record(0, outcome("ro", "1", kind), 0)
    never_ran = kind in {OutcomeKind.REFUSED, OutcomeKind.DEFERRED}
    assert (ledger.exposed, ledger.exposed_up_to(0)) == ((0, 0) if never_ran else (1, 1))
