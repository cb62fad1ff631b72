"""The exact boundary of small fleets, against an enumeration of all outcomes."""

import itertools

import pytest

from edgefleet.rollout.evidence.small_fleet import (
    Plan,
    boundary,
    nearest_crossing,
    total_spent,
)

LIMIT, ALPHA = 0.05, 0.03


def enumerated(needed: tuple[int, ...], rate: float) -> float:
    """The probability of a crossing, over all sequences of outcomes."""
    total = 0.0
    for outcomes in itertools.product((False, True), repeat=len(needed)):
        if nearest_crossing(outcomes, needed).reached:
            bad = sum(outcomes)
            total += rate**bad * (1 - rate) ** (len(needed) - bad)
    return total


@pytest.mark.parametrize(
    ("devices", "needed"),
    [
        (3, (2, 2, 2)),
        (5, (2, 2, 2, 2, 2)),
        (8, (2, 2, 2, 2, 2, 3, 3, 3)),
        (12, (2,) * 4 + (3,) * 8),
        (30, (2,) * 3 + (3,) * 7 + (4,) * 8 + (5,) * 10 + (6,) * 2),
    ],
)
def test_the_boundary_of_a_fleet(devices: int, needed: tuple[int, ...]):
    assert boundary((Plan(0, devices),), LIMIT, ALPHA) == needed
    assert total_spent(needed, LIMIT) <= ALPHA


@pytest.mark.parametrize("devices", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_what_is_spent_is_the_enumerated_probability(devices: int, rate: float):
    needed = boundary((Plan(0, devices),), LIMIT, ALPHA)
    assert total_spent(needed, rate) == pytest.approx(enumerated(needed, rate))


@pytest.mark.parametrize("devices", range(1, 31))
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
def test_a_release_at_its_limit_fails_with_at_most_alpha(devices: int, limit: float):
    needed = boundary((Plan(0, devices),), limit, ALPHA)
    assert total_spent(needed, limit) <= ALPHA
    assert min(needed) >= 2


def test_a_fleet_that_changes_keeps_its_boundary_and_what_it_spent():
    before = boundary((Plan(0, 5),), LIMIT, ALPHA)
    after = boundary((Plan(0, 5), Plan(3, 12), Plan(6, 8)), LIMIT, ALPHA)
    assert after[:3] == before[:3]
    assert len(after) == 8
    assert total_spent(after, LIMIT) <= ALPHA


def test_the_boundary_counts_failures_in_the_order_of_the_starts():
    needed = (2, 2, 3, 3)
    assert nearest_crossing([True, True, False, False], needed) == (2, 2, 2)
    assert nearest_crossing([True, False, True, False], needed).reached is False
    assert nearest_crossing([], needed).reached is False
