"""Paired statistics, against scipy, enumerations and simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from edgefleet.optimize.paired import (
    LEVEL,
    POWER,
    mcnemar_p,
    mean_interval,
    percentile_interval,
    resample_counts,
    resampled,
    share_interval,
    smallest_mean_loss,
    smallest_resampled_loss,
    smallest_share_loss,
)


@pytest.mark.parametrize(
    ("losses", "gains"), [(0, 0), (1, 0), (6, 0), (7, 7), (30, 12), (3, 41), (900, 1000)]
)
def test_mcnemar_is_the_binomial_test_of_scipy(losses: int, gains: int) -> None:
    if losses + gains == 0:
        assert mcnemar_p(0, 0) == 1.0
        return
    wanted = stats.binomtest(losses, losses + gains, 0.5).pvalue
    assert mcnemar_p(losses, gains) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_is_exact_by_enumeration() -> None:
    """Six losses and no gain: 2 of the 64 ways are as far from even."""
    assert mcnemar_p(6, 0) == 2 / 64
    assert mcnemar_p(0, 6) == 2 / 64
    assert mcnemar_p(5, 1) == 2 * (1 + 6) / 64


def test_an_interval_of_shares_is_that_of_bonett_and_price() -> None:
    """By hand: 7 losses of 719, with one loss and one gain added."""
    found = share_interval(7, 0, 719)
    lost, gained = 8 / 721, 1 / 721
    half = stats.norm.ppf(0.975) * math.sqrt((lost + gained - (lost - gained) ** 2) / 721)
    assert found.low == pytest.approx(gained - lost - half)
    assert found.high == pytest.approx(gained - lost + half)
    assert found.level == LEVEL


@pytest.mark.parametrize("cases", [5, 40, 719])
def test_an_interval_of_shares_rises_with_gains_and_falls_with_losses(cases: int) -> None:
    lows = np.full((cases + 1, cases + 1), np.nan)
    highs = lows.copy()
    step = max(1, cases // 40)
    for losses in range(0, cases + 1, step):
        for gains in range(0, cases + 1 - losses, step):
            found = share_interval(losses, gains, cases)
            lows[losses, gains], highs[losses, gains] = found.low, found.high
            assert found.low <= (gains - losses) / (cases + 2) <= found.high
    for ends in (lows[::step, ::step], highs[::step, ::step]):
        for axis, sign in ((0, -1), (1, 1)):
            steps = np.diff(ends, axis=axis) * sign
            assert (steps[~np.isnan(steps)] >= 0).all()


def test_an_interval_of_shares_covers_the_true_difference() -> None:
    """Exact coverage: the sum over all outcomes of 200 cases with their probabilities."""
    cases, lost, gained = 200, 0.03, 0.01
    covered = 0.0
    for losses in range(40):
        for gains in range(30):
            found = share_interval(losses, gains, cases)
            if found.low <= gained - lost <= found.high:
                covered += float(
                    stats.multinomial.pmf(
                        [losses, gains, cases - losses - gains],
                        cases,
                        [lost, gained, 1 - lost - gained],
                    )
                )
    assert 0.94 <= covered <= 0.985


@pytest.mark.parametrize("cases", [300, 719, 5_000])
def test_a_loss_of_the_smallest_size_is_shown_with_the_stated_power(cases: int) -> None:
    """The power of the exact test at the loss, by the distribution of losses (no gains)."""
    loss = smallest_share_loss(0, 0, cases)
    counts = np.arange(cases + 1)
    shown = np.array([mcnemar_p(int(n), 0) < 1 - LEVEL for n in counts[:60]])
    power = float(stats.binom.pmf(counts[:60], cases, loss)[shown].sum())
    assert power == pytest.approx(POWER, abs=0.06)


def test_more_cases_show_smaller_losses_and_more_noise_larger_ones() -> None:
    assert smallest_share_loss(0, 0, 719) == pytest.approx(0.0108, abs=0.0002)
    assert smallest_share_loss(0, 0, 7_190) < smallest_share_loss(0, 0, 719) / 9
    assert smallest_share_loss(20, 20, 719) > smallest_share_loss(0, 0, 719)
    assert smallest_share_loss(0, 0, 3) <= 1.0


def test_resamples_draw_each_case_as_often_as_chance_says() -> None:
    counts = np.concatenate(list(resample_counts(50, 4_000)))
    assert counts.shape == (4_000, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # binomial(50, 1/50)
    again = np.concatenate(list(resample_counts(50, 4_000)))
    assert np.array_equal(counts, again)


def test_a_bootstrap_of_a_mean_is_near_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(0.8, 0.1, 300)
    after = before + rng.exponential(0.02, 300) - 0.03
    mine = mean_interval(before, after)
    theirs = stats.bootstrap(
        (after - before,), np.mean, method="percentile", n_resamples=4_000, rng=2
    ).confidence_interval
    assert mine.low == pytest.approx(theirs.low, abs=2e-4)
    assert mine.high == pytest.approx(theirs.high, abs=2e-4)


def test_the_blocks_of_resamples_do_not_change_a_value() -> None:
    scores = np.arange(9_000.0)  # blocks of 444 resamples
    values = resampled(lambda counts: counts @ scores / 9_000, 9_000, 500)
    assert len(values) == 500
    assert np.std(values) == pytest.approx(scores.std() / math.sqrt(9_000), rel=0.1)


def test_smallest_losses_of_means_are_those_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(0.5, 1.0, 400)
    after = before + rng.normal(0, 0.2, 400)
    loss = smallest_mean_loss(before, after)
    spread = (after - before).std(ddof=1) / math.sqrt(400)
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, 399), 399, loss / spread)
    assert power == pytest.approx(POWER, abs=0.01)
    assert smallest_resampled_loss(rng.normal(0, spread, 50_000)) == pytest.approx(loss, rel=0.02)


def test_equal_scores_do_not_claim_that_any_loss_would_have_been_seen() -> None:
    scores = np.full(100, 0.9)
    assert smallest_mean_loss(scores, scores) == pytest.approx(
        0.9 * (1.96 + 0.8416) / 100, rel=1e-3
    )


@pytest.mark.long
def test_a_bootstrapped_interval_covers_a_skewed_loss() -> None:
    """1,500 data sets of 300 cases: most scores are kept, some fall by half."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(1_500):
        before = rng.uniform(0.6, 1.0, 300)
        after = before * np.where(rng.random(300) < 0.1, 0.5, 1.0)
        found = mean_interval(before, after)
        covered += found.low <= -0.8 * 0.05 <= found.high
    assert 0.92 <= covered / 1_500 <= 0.97


def test_a_percentile_interval_has_the_quantiles_as_its_ends() -> None:
    found = percentile_interval(np.arange(1_001.0))
    assert (found.low, found.high) == pytest.approx((25.0, 975.0))
