"""The detector of failures that begin late: its formula, its power and its false alarms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.rollout import GateSpec
from edgefleet.rollout.evidence.alphas import FAILURES, LATE
from edgefleet.rollout.evidence.detector import (
    EPISODE_STARTS,
    NOTHING_FOUND,
    Counts,
    Finding,
    Floats,
    Grid,
    _alternatives,
    detect,
)
from edgefleet.rollout.evidence.sequential import log_rate_evidence
from edgefleet.rollout.limits import LATE_BUCKETS

LIMIT = 0.05
BAR = LATE.log_bar(GateSpec())
THOUSAND = Grid(first=10, most=50, devices=1000)


def filled(grid: Grid) -> Counts:
    """The buckets of a fleet of which each device has begun."""
    sizes: list[int] = []
    while (position := sum(sizes)) < grid.devices:
        sizes.append(min(grid.size(position), grid.devices - position))
    return np.array(sizes, np.int64)


def weights(grid: Grid, buckets: int) -> Floats:
    return np.array([grid.log_weight(number, 0) for number in range(1, buckets + 1)])


def found(grid: Grid, begun: Counts, bad: Counts) -> Finding:
    return detect(begun, bad, weights(grid, len(begun)), LIMIT)


def by_the_formula(begun: Counts, bad: Counts, log_weights: Floats) -> list[float]:
    """log M of each prefix, by the recursion of the docstring, in plain numbers."""
    rates, log_prior = _alternatives(LIMIT)
    ratio, answer = np.zeros(len(rates)), []
    for size, failed, weight in zip(begun, bad, np.exp(log_weights), strict=True):
        gain = (rates / LIMIT) ** failed * ((1 - rates) / (1 - LIMIT)) ** (size - failed)
        ratio = (ratio + weight) * gain
        answer.append(math.log(float(np.exp(log_prior) @ ratio)))
    return answer


BUCKETS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=30).filter(
    lambda parts: any(bad for _, bad in parts)
)


@given(BUCKETS)
def test_it_is_the_formula(parts: list[tuple[int, int]]) -> None:
    begun = np.array([size for size, _ in parts], np.int64)
    bad = np.minimum(begun, np.array([failed for _, failed in parts], np.int64))
    if not bad.any():
        return
    log_weights = weights(THOUSAND, len(parts))
    values = by_the_formula(begun, bad, log_weights)
    finding = detect(begun, bad, log_weights, LIMIT)
    assert finding.log_e_value == pytest.approx(max(values), abs=1e-9)
    mean = values[-1] - math.log(float(np.exp(log_weights).sum()))
    assert finding.log_ratio == pytest.approx(mean, abs=1e-9)


def test_the_prior_of_the_alternatives_is_a_distribution_above_the_limit() -> None:
    for limit in (0.001, LIMIT, 0.4, 0.99):
        rates, log_prior = _alternatives(limit)
        assert (rates > limit).all()
        assert float(np.exp(log_prior).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "grid",
    [
        THOUSAND,
        Grid(10, 50_000, 1_000_000),
        Grid(1, 1, 1_000_000),
        Grid(1_000_000, 1_000_000, 5),
        Grid(3, 10, 0),
    ],
)
def test_the_weights_of_all_starts_sum_to_at_most_one(grid: Grid) -> None:
    buckets, episodes = grid.buckets, 5000
    assert buckets <= LATE_BUCKETS + math.log(1_000_000) * 2
    planned = sum(math.exp(grid.log_weight(number, 0)) for number in range(1, buckets + 1))
    extra = sum(math.exp(grid.log_weight(0, number)) for number in range(1, episodes))
    assert extra <= EPISODE_STARTS / (buckets + EPISODE_STARTS)
    assert planned + extra <= 1.0
    assert grid.log_weight(buckets + 1, 0) == -math.inf


def test_five_failures_in_a_row_are_enough_after_any_healthy_past() -> None:
    begun, bad = filled(THOUSAND), np.zeros(len(filled(THOUSAND)), np.int64)
    late = len(begun) // 2
    needed = 0
    while found(THOUSAND, begun[: late + 1], bad[: late + 1]).log_e_value < BAR:
        needed += 1
        begun[late], bad[late] = needed, needed
    assert needed == 5
    past = int(begun[:late].sum())
    alone = next(
        n for n in range(1, 400) if log_rate_evidence(n, past + n, LIMIT) >= FAILURES.log_bar(GateSpec())
    )  # fmt: skip
    assert alone > 15, "all evidence together forgives more"


def test_the_start_that_tells_most_is_where_the_failures_begin() -> None:
    begun = filled(THOUSAND)
    bad = np.zeros(len(begun), np.int64)
    bad[60:63] = begun[60:63]
    finding = found(THOUSAND, begun[:63], bad[:63])
    assert (finding.start, finding.end) == (60, 62)
    later = found(THOUSAND, begun, bad)
    assert later.log_e_value == finding.log_e_value, "evidence once reached stays"
    assert later.end == 62


def test_nothing_that_failed_is_no_evidence() -> None:
    begun = filled(THOUSAND)
    assert found(THOUSAND, begun, np.zeros(len(begun), np.int64)) is NOTHING_FOUND
    empty = np.zeros(0, np.int64)
    assert found(THOUSAND, empty, empty) is NOTHING_FOUND


def test_a_release_exactly_at_the_limit_is_seldom_rolled_back() -> None:
    """The promise is 0.005. All prefixes are looked at; 2,000 fleets show 0.0125 or more."""
    rng = np.random.default_rng(7)
    begun = filled(THOUSAND)
    fleets = 2000
    alarms = sum(
        found(THOUSAND, begun, rng.binomial(begun, LIMIT)).log_e_value >= BAR for _ in range(fleets)
    )
    assert alarms <= 0.0125 * fleets
    loud = sum(
        found(THOUSAND, begun, rng.binomial(begun, LIMIT)).log_e_value >= BAR - 5
        for _ in range(200)
    )
    assert loud > 0, "the count of alarms can fail"


@pytest.mark.parametrize(("limit", "evidence"), [(0.0, math.inf), (1.0, -math.inf)])
def test_a_limit_at_the_edge(limit: float, evidence: float) -> None:
    begun, bad = np.array([3, 3]), np.array([0, 1])
    assert detect(begun, bad, weights(THOUSAND, 2), limit).log_e_value == evidence
