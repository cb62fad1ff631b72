"""The cost of a release: windows of ten minutes, the growth of memory, and the end of a trial."""

from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.agent import cost_trial, cost_window, limits, trial
from edgefleet.agent.cost_figures import Board, CostWindows, Trend, follow, growth_mib_h
from edgefleet.agent.quality_window import advance, incumbent
from edgefleet.agent.state import Attempt, Incumbent, Windows
from edgefleet.agent.trial import HEALTHY, Sick, Watching
from edgefleet.protocol.device import Reason, Scores
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats
from support.agent_world import serving, serving_model

MIB = 1024
MINUTES = 60.0


# The growth of memory.


def samples(
    kib: Callable[[float], float], *, until: float = 600.0
) -> tuple[tuple[float, int], ...]:
    return tuple((at, round(kib(at))) for at in range(0, int(until) + 1, 25))


def test_a_leak_of_a_mib_a_minute_is_sixty_an_hour() -> None:
    assert growth_mib_h(samples(lambda at: 70_000 + MIB * at / 60)) == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("at", [30, 290, 310, 570])
def test_a_step_of_the_allocator_is_no_growth_whenever_it_comes(at: float) -> None:
    assert growth_mib_h(samples(lambda now: 70_000 + 64 * MIB * (now > at))) == 0


def test_two_steps_and_a_peak_are_no_growth() -> None:
    assert growth_mib_h(samples(lambda at: 70_000 + 700 * (at > 200) + 700 * (at > 400))) == 0
    peak = growth_mib_h(samples(lambda at: 70_000 + 9 * MIB * (200 < at < 300)))
    assert peak is not None
    assert peak <= 0


def test_a_leak_in_steps_is_a_leak() -> None:
    found = growth_mib_h(samples(lambda at: 70_000 + MIB * (at // 60)))
    assert found is not None
    assert 40 < found < 80


def test_a_leak_is_seen_through_noise_and_noise_is_no_leak() -> None:
    for seed in range(20):
        draw = Random(seed)
        still_kib = samples(lambda _, draw=draw: 70_000 + draw.uniform(-300, 300))
        still = growth_mib_h(still_kib)
        leak = growth_mib_h(tuple((at, kib + MIB * int(at) // 60) for at, kib in still_kib))
        assert leak is not None
        assert still is not None
        assert leak > 40
        assert still <= 0


def test_too_few_samples_say_nothing() -> None:
    assert growth_mib_h(samples(lambda at: at, until=25.0 * (limits.TREND_LEAST - 2))) is None


def test_a_trend_is_bounded_and_covers_the_whole_time() -> None:
    trend = Trend()
    for tick in range(100_000):
        trend = follow(trend, tick / 10, 1000 + tick)
    assert len(trend.samples) <= limits.TREND_SAMPLES
    assert trend.samples[0][0] == 0
    assert trend.samples[-1][0] > 9000
    assert follow(trend, 1e9, 0) is trend  # a process that does not say its memory


# Windows.


def observe(
    windows: CostWindows,
    release: str,
    since: float,
    until: float,
    *,
    leak_mib_h: float = 0.0,
    board: Callable[[float], Board | None] = lambda _: None,
    pid: int = 7,
    worker: int | None = None,
) -> CostWindows:
    """Probe every five seconds."""
    at = since
    while at < until:
        kib = 70_000 + int(MIB * leak_mib_h * (at - since) / 3600)
        own = replace(
            serving_model(release),
            worker=worker,
            stats=LiveStats(requests=int(at), process_kib=kib),
        )
        windows = cost_window.advance(windows, own, pid, board(at), at)
        at += 5.0
    return windows


def compared(windows: CostWindows) -> Scores:
    assert windows.scores is not None
    return windows.scores


def test_a_leak_after_a_switch_is_the_difference_to_the_release_before() -> None:
    windows = observe(CostWindows(), "1", 0, 15 * MINUTES)
    windows = observe(windows, "2", 15 * MINUTES, 30 * MINUTES, leak_mib_h=60.0)
    scores = compared(windows)
    assert (scores.from_release, scores.to_release) == ("1", "2")
    assert scores.memory_growth_delta == pytest.approx(60, rel=0.05)
    assert scores.requests > 500
    assert scores.latency_log_ratio is None


def test_a_leak_of_both_releases_is_no_difference() -> None:
    windows = observe(CostWindows(), "1", 0, 15 * MINUTES, leak_mib_h=60.0)
    windows = observe(windows, "2", 15 * MINUTES, 30 * MINUTES, leak_mib_h=60.0)
    assert compared(windows).memory_growth_delta == pytest.approx(0, abs=2)


def test_the_memory_of_the_first_two_minutes_is_left_out() -> None:
    def warming(windows: CostWindows, release: str, since: float) -> CostWindows:
        windows = observe(windows, release, since, since + 2 * MINUTES, leak_mib_h=3600.0)
        return observe(windows, release, since + 2 * MINUTES, since + 15 * MINUTES)

    windows = warming(warming(CostWindows(), "1", 0.0), "2", 15 * MINUTES)
    assert compared(windows).memory_growth_delta == 0


def test_the_heat_of_the_first_two_minutes_is_left_out() -> None:
    def board(at: float) -> Board:
        return Board(temperature_c=80.0 if 0 <= at - 15 * MINUTES < 2 * MINUTES else 50.0)

    windows = observe(CostWindows(), "1", 0, 15 * MINUTES, board=board)
    windows = observe(windows, "2", 15 * MINUTES, 30 * MINUTES, board=board)
    assert compared(windows).temperature_delta == 0


def test_a_new_process_begins_a_new_window_and_the_release_before_stays_the_baseline() -> None:
    windows = observe(CostWindows(), "1", 0, 15 * MINUTES)
    windows = observe(windows, "2", 15 * MINUTES, 20 * MINUTES, worker=9, leak_mib_h=600)
    assert windows.scores is None
    windows = observe(windows, "2", 20 * MINUTES, 33 * MINUTES)
    assert (compared(windows).from_release, compared(windows).memory_growth_delta) == ("1", 0)


def test_no_comparison_spans_the_switch_of_another_model() -> None:
    windows = cost_window.restart(observe(CostWindows(), "1", 0, 15 * MINUTES))
    windows = observe(windows, "2", 15 * MINUTES, 28 * MINUTES)
    assert windows.scores is None
    assert compared(observe(windows, "2", 28 * MINUTES, 40 * MINUTES)).from_release == "2"


def test_scores_of_a_switch_wait_until_they_are_reported() -> None:
    windows = observe(CostWindows(), "1", 0, 15 * MINUTES)
    windows = observe(windows, "2", 15 * MINUTES, 60 * MINUTES)
    assert compared(windows).from_release == "1"


def test_the_board_is_compared_with_the_time_before_the_switch() -> None:
    def before(at: float) -> Board:
        return Board(temperature_c=50.0, is_throttled=False, battery_percent=90 - at / 360)

    def after(at: float) -> Board:
        return Board(temperature_c=62.0, is_throttled=True, battery_percent=90 - at / 120)

    windows = observe(CostWindows(), "1", 0, 15 * MINUTES, board=before)
    scores = compared(observe(windows, "2", 15 * MINUTES, 30 * MINUTES, board=after))
    assert scores.temperature_delta == 12.0
    assert scores.throttled_delta == 1.0
    assert scores.battery_drain_delta == pytest.approx(20.0)


def test_a_figure_that_one_window_lacks_is_not_compared() -> None:
    windows = observe(CostWindows(), "1", 0, 15 * MINUTES)
    windows = observe(
        windows, "2", 15 * MINUTES, 28 * MINUTES, board=lambda _: Board(temperature_c=60.0)
    )
    scores = compared(windows)
    assert (scores.temperature_delta, scores.throttled_delta) == (None, None)
    assert scores.memory_growth_delta == 0


def test_the_drain_of_a_battery_that_was_charged_meanwhile_is_not_known() -> None:
    def on_battery(at: float) -> Board:
        return Board(battery_percent=90 - at / 360)

    def charged_for_a_while(at: float) -> Board:
        return Board() if 20 * MINUTES < at < 22 * MINUTES else on_battery(at)

    windows = observe(CostWindows(), "1", 0, 15 * MINUTES, board=on_battery)
    scores = compared(observe(windows, "2", 15 * MINUTES, 28 * MINUTES, board=charged_for_a_while))
    assert scores.battery_drain_delta is None
    scores = compared(observe(windows, "2", 15 * MINUTES, 28 * MINUTES, board=on_battery))
    assert scores.battery_drain_delta == pytest.approx(0)


# CPU time.


def served(cpu_us: float, requests: int = 200) -> LiveStats:
    return LiveStats(requests=requests, cpu_s=cpu_us * requests / 1e6, latency_us_p95=1)


def windows_of(before_us: float, after_us: float) -> Windows:
    found, now = Windows(), 0.0
    for release, cpu_us in (
        ("1", before_us),
        ("1", before_us),
        ("2", after_us),
        ("2", after_us),
        ("2", after_us),
    ):
        now += 100.0
        own = replace(serving_model(release), stats=served(cpu_us))
        found = advance(found, own, served(cpu_us), now)
    return found


def test_the_cpu_time_of_a_request_is_a_score() -> None:
    scores = windows_of(500, 1000).scores
    assert scores is not None
    assert scores.cpu_log_ratio == pytest.approx(0.693, abs=0.001)
    assert (scores.from_release, scores.to_release) == ("1", "2")


def test_the_cpu_time_of_the_warm_up_is_left_out() -> None:
    found = windows_of(400, 400)
    for now, cpu_us in ((600.0, 9000), (600 + limits.WARM_UP_S, 9000), (700.0, 500)):
        own = replace(serving_model("3"), stats=served(cpu_us))
        found = advance(found, own, served(cpu_us), now)
    known = incumbent(found, "3")
    assert 1e6 * known.cpu_s / known.cpu_requests == pytest.approx(500)


@pytest.mark.parametrize(("before", "after"), [(0, 500), (500, 0), (0, 0)])
def test_a_serving_process_that_does_not_count_cpu_time_has_no_score(
    before: int, after: int
) -> None:
    scores = windows_of(before, after).scores
    assert scores is not None
    assert scores.cpu_log_ratio is None


# The end of a trial.

QUALITY = Quality(output="y", scores="probabilities", max_confidence_drop=0.1, min_requests=20)
KNOWN = Incumbent(release="1", requests=300, cpu_s=0.3, cpu_requests=300)  # 1 ms a request


def attempt(before: Incumbent | None = KNOWN, **bounds: float | None) -> Attempt:
    return Attempt(
        number=1, rollout="ro-1", action="install", model="digits", release="2",
        manifest_sha256="0" * 64, confirm_after_s=60.0, max_attempts=2, slot="b", leaving="1",
        incumbent=before, **{"max_cpu_increase": 0.25, "max_memory_growth_mib_h": 20.0, **bounds},
    )  # fmt: skip


def ended(tried: Attempt, at_end: Callable[[float], LiveStats]) -> object:
    """The finding at the end of a trial of a minute."""
    watch = trial.begin(tried, serving("2"), 0.0)
    for tick in range(1, 121):
        now = tick / 2
        own = replace(serving_model("2"), stats=at_end(now))
        status = replace(serving("2"), models=(own,))
        found = trial.judge(tried, QUALITY, watch, status, alive=True, now=now)
        if not isinstance(found, Watching):
            assert now == 60.0
            return found
        watch = found.watch
    raise AssertionError("the trial did not end")


def uses(cpu_us: float, requests: int = 200) -> Callable[[float], LiveStats]:
    return lambda _: LiveStats(requests=requests, cpu_s=cpu_us * requests / 1e6)


def test_twice_the_cpu_time_fails_a_trial_and_the_figures_are_named() -> None:
    assert ended(attempt(), uses(2000)) == Sick(
        Reason.CPU,
        "CPU time of a request rose from 1000 us to 2000 us over 200 requests (limit 1500 us). "
        "Of release 1: 300 requests.",
    )


@pytest.mark.parametrize(
    ("tried", "stats"),
    [
        (attempt(), uses(1000)),
        (attempt(), uses(1450)),  # within the margin of one device; the gate compares many
        (attempt(max_cpu_increase=1.0), uses(2000)),
        (attempt(max_cpu_increase=None), uses(2000)),  # an older hub
        (attempt(None), uses(2000)),
        (attempt(replace(KNOWN, cpu_s=0.0, cpu_requests=0)), uses(2000)),
        (attempt(replace(KNOWN, cpu_s=0.03, cpu_requests=30)), uses(2000)),
        (attempt(), uses(2000, requests=limits.COST_REQUESTS - 1)),
        (attempt(), uses(0)),  # serving does not count it
        (attempt(replace(KNOWN, cpu_s=0.03)), uses(290)),  # colder caches: 0.1 ms to 0.29 ms
    ],
)  # fmt: skip
def test_other_cpu_times_fail_no_trial(tried: Attempt, stats: Callable[[float], LiveStats]) -> None:
    assert ended(tried, stats) is HEALTHY


def leaks(mib_h: float, *, warm_mib: int = 0) -> Callable[[float], LiveStats]:
    """Memory that grows all the time, after a warm-up of ten seconds."""
    return lambda at: LiveStats(
        process_kib=70_000 + int(mib_h * MIB * at / 3600) + warm_mib * MIB * (at > 10)
    )


def test_a_fast_leak_fails_a_trial_and_the_growth_is_named() -> None:
    assert ended(attempt(), leaks(3600)) == Sick(
        Reason.MEMORY_GROWTH,
        "The memory of its process grew steadily by 3600 MiB an hour, 42 MiB so far (limit 20 MiB "
        "an hour).",
    )


@pytest.mark.parametrize(
    ("tried", "stats"),
    [
        (attempt(), leaks(0)),
        (attempt(), leaks(0, warm_mib=100)),
        (attempt(), leaks(60)),  # too slow for a minute: the gate compares ten
        (attempt(max_memory_growth_mib_h=4000), leaks(3600)),
        (attempt(max_memory_growth_mib_h=None), leaks(3600)),
        (attempt(replace(KNOWN, memory_mib_h=3600)), leaks(3600)),
        (attempt(), lambda _: LiveStats()),  # serving does not say it
    ],
)
def test_other_memory_fails_no_trial(tried: Attempt, stats: Callable[[float], LiveStats]) -> None:
    assert ended(tried, stats) is HEALTHY


def test_a_slow_leak_fails_a_long_trial() -> None:
    tried = attempt()
    trend = Trend()
    for tick in range(900):
        trend = follow(trend, float(tick), 70_000 + MIB * tick // 60)
    assert "60 MiB an hour, 11 MiB so far" in cost_trial.memory(tried, trend)


def test_the_incumbent_has_the_cpu_time_of_its_warm_requests() -> None:
    found = incumbent(windows_of(500, 1000), "2")
    assert found.cpu_requests > 0
    assert 1e6 * found.cpu_s / found.cpu_requests == pytest.approx(1000)
