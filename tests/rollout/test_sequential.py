"""Sequential tests: their values, and their error rates when evaluated after every device."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.rollout.evidence.beta import upper_tail
from edgefleet.rollout.evidence.sequential import (
    Bet,
    exact_p_value,
    log_rate_evidence,
    rate_interval,
)

LIMIT = 0.05
ALPHA = 0.05
LOOKS = 400
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def integrated(bad: int, size: int, limit: float) -> float:
    """The e-value by the midpoint rule: a Beta(1, 4) mixture above the limit, against the limit."""
    steps = 100_000
    rates = limit + (1 - limit) * (np.arange(steps) + 0.5) / steps
    prior = (1 - rates) ** 3
    ratio = bad * np.log(rates / limit) + (size - bad) * np.log((1 - rates) / (1 - limit))
    return float((prior * np.exp(ratio)).sum() / prior.sum())


@pytest.mark.parametrize(
    ("bad", "size"), [(0, 1), (1, 1), (0, 10), (1, 10), (3, 11), (5, 5), (20, 100), (3, 300)]
)
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3])
def test_the_evidence_is_the_mixed_likelihood_ratio(bad: int, size: int, limit: float):
    assert math.exp(log_rate_evidence(bad, size, limit)) == pytest.approx(
        integrated(bad, size, limit), rel=1e-5
    )


@pytest.mark.parametrize(
    ("failed", "value"),
    [(0, 0.267), (1, 0.648), (2, 2.20), (3, 10.8), (4, 74.9), (5, 712), (6, 9017)],
)
def test_the_evidence_of_eleven_devices(failed: int, value: float):
    assert math.exp(log_rate_evidence(failed, 11, LIMIT)) == pytest.approx(value, rel=5e-3)


@given(counts)
def test_evidence_grows_with_failures_and_shrinks_with_devices_that_are_well(
    case: tuple[int, int],
):
    bad, size = case
    here = log_rate_evidence(bad, size, LIMIT)
    assert log_rate_evidence(bad + 1, size + 1, LIMIT) > here
    assert log_rate_evidence(bad, size + 1, LIMIT) < here


@given(counts, st.floats(0.001, 0.9))
def test_the_next_device_is_no_gain_on_average_while_the_rate_is_the_limit(
    case: tuple[int, int], limit: float
):
    """The expected value is 1, so the bet is fair and Ville's inequality applies."""
    bad, size = case
    here = log_rate_evidence(bad, size, limit)
    mean = limit * math.exp(log_rate_evidence(bad + 1, size + 1, limit) - here)
    mean += (1 - limit) * math.exp(log_rate_evidence(bad, size + 1, limit) - here)
    assert mean == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("bad", [0, 1, 10_000, 50_000, 51_000, 500_000, 1_000_000])
def test_it_is_finite_and_in_order_at_a_million(bad: int):
    value = log_rate_evidence(bad, 1_000_000, LIMIT)
    assert math.isfinite(value)
    assert (value > 0) == (bad > 50_000)
    low, high = rate_interval(bad, 1_000_000)
    assert low <= bad / 1_000_000 <= high
    assert high - low < 0.005


def test_where_nothing_may_fail_one_failure_is_all_the_evidence():
    assert log_rate_evidence(1, 10, 0.0) == math.inf
    assert log_rate_evidence(0, 10, 0.0) == 0
    assert log_rate_evidence(10, 10, 1.0) == 0


def exact_tail(failed: int, size: int, rate: float) -> float:
    """Computed in integers: floating-point powers of such small rates lose digits or underflow."""
    part, whole = rate.as_integer_ratio()
    ways = (
        math.comb(size, k) * part**k * (whole - part) ** (size - k) for k in range(failed, size + 1)
    )
    return sum(ways) / whole**size


@given(st.integers(2, 200).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))),
       st.floats(1e-3, 1))  # fmt: skip
def test_the_tail_is_the_binomial_sum(case: tuple[int, int], share: float):
    failed, size = case
    rate = share * failed / size
    assert upper_tail(failed, size, rate) == pytest.approx(
        exact_tail(failed, size, rate), rel=1e-9, abs=1e-300
    )


@pytest.mark.parametrize(("failed", "size"), [(0, 10), (3, 11), (2, 5), (4, 4), (1, 100)])
def test_the_exact_test_is_the_binomial_tail_above_the_limit(failed: int, size: int):
    wanted = exact_tail(failed, size, LIMIT) if failed / size > LIMIT else 1.0
    assert exact_p_value(failed, size, LIMIT) == pytest.approx(wanted, rel=1e-9)


# Error rates when evaluated after every device.

Alarm = Callable[[int, int], bool]


def by_evidence(bad: int, size: int) -> bool:
    return log_rate_evidence(bad, size, LIMIT) >= math.log(1 / ALPHA)


def by_naive_peeking(bad: int, size: int) -> bool:
    """The planted mistake: a fixed-sample test at every evaluation."""
    return size >= 5 and exact_p_value(bad, size, LIMIT) <= ALPHA


def alarms(alarm: Alarm, rate: float, *, runs: int = 4000) -> np.ndarray:
    """Number of the device at which each of ``runs`` rollouts alarmed. LOOKS + 1 for never."""
    least: list[int] = []  # failures needed, by the number of devices
    enough = 1
    for size in range(1, LOOKS + 1):
        while enough <= size and not alarm(enough, size):
            enough += 1
        while enough > 1 and alarm(enough - 1, size):
            enough -= 1
        least.append(enough)
    draws = np.random.default_rng(5).random((runs, LOOKS)) < rate
    raised = draws.cumsum(axis=1) >= np.array(least)
    return np.where(raised.any(axis=1), raised.argmax(axis=1) + 1, LOOKS + 1)


def false_alarms(alarm: Alarm) -> float:
    return float((alarms(alarm, LIMIT) <= LOOKS).mean())


def test_a_release_at_the_limit_is_blamed_no_more_often_than_promised():
    assert false_alarms(by_evidence) <= ALPHA


def test_the_calibration_catches_a_test_that_peeks_naively():
    assert false_alarms(by_naive_peeking) > 3 * ALPHA


@pytest.mark.parametrize(("rate", "devices"), [(0.2, 30), (0.5, 8), (0.1, 220)])
def test_a_bad_release_is_found_soon(rate: float, devices: int):
    assert np.median(alarms(by_evidence, rate)) <= devices


def test_the_interval_covers_the_rate_at_all_times_at_once():
    draws = np.random.default_rng(6).random((300, 200)) < 0.1
    missed = 0
    for run in draws.cumsum(axis=1).tolist():
        intervals = (rate_interval(bad, size) for size, bad in enumerate(run, 1))
        missed += any(not low <= 0.1 <= high for low, high in intervals)
    assert missed / len(draws) <= 0.05


# Bets on a mean.


def differences(mean: float, *, seed: int) -> list[float]:
    """Bounded differences with heavy ends, the hardest case for the test."""
    draw = random.Random(seed)
    share = (mean + 0.5) / 1.0
    return [0.5 if draw.random() < share else -0.5 for _ in range(300)]


def played(values: list[float]) -> Bet:
    bet = Bet(allowed=0.1, bound=0.5)
    for value in values:
        bet = bet.after(value)
    return bet


def foreseeing(bet: Bet, value: float) -> Bet:
    """The planted mistake: the bet uses the difference that it bets on."""
    return bet.after(value) if value > bet.allowed else bet


def blamed(after: Callable[[Bet, float], Bet] = Bet.after) -> float:
    """The share of runs in which the wealth ever reaches 1 / alpha."""
    runs = 0
    for seed in range(400):
        bet, reached = Bet(allowed=0.1, bound=0.5), False
        for value in differences(0.1, seed=seed):
            bet = after(bet, value)
            reached = reached or bet.log_wealth >= math.log(1 / ALPHA)
        runs += reached
    return runs / 400


def test_a_mean_at_the_limit_is_blamed_no_more_often_than_promised():
    assert blamed() <= ALPHA


def test_the_calibration_catches_a_bet_that_knows_the_outcome():
    assert blamed(foreseeing) > 0.9


def test_a_mean_above_the_limit_is_found_and_its_interval_says_where_it_is():
    draw = random.Random(1)
    bet = played([draw.gauss(0.27, 0.2) for _ in range(150)])
    assert bet.log_wealth > math.log(1000)
    low, high = bet.interval
    assert 0.1 < low < bet.mean < high


def test_the_interval_of_a_mean_covers_it_at_all_times_at_once():
    missed = 0
    for seed in range(200):
        bet, out = Bet(allowed=0.1, bound=0.5), False
        for value in differences(0.2, seed=seed):
            bet = bet.after(value)
            low, high = bet.interval
            out = out or not low <= 0.2 <= high
        missed += out
    assert missed / 200 <= 0.05


@given(st.lists(st.floats(-5, 5), max_size=60), st.randoms(use_true_random=False))
def test_a_bet_never_ruins_and_does_not_depend_on_the_order(values: list[float], draw):
    bet = Bet(allowed=0.1, bound=0.5)
    for value in values:
        bet = bet.after(value)
        assert math.isfinite(bet.log_wealth)
        assert -0.5 <= bet.interval[0] <= bet.interval[1] <= 0.5
    shuffled = values.copy()
    draw.shuffle(shuffled)
    assert bet == played(shuffled)
    assert bet.after(0.3, times=7) == played([0.3] * 7 + values)
