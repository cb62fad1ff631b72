"""A device compares its last window of requests with the one before it."""

import math
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from edgefleet.agent import limits
from edgefleet.agent import sketch_math as bins
from edgefleet.agent.quality_window import advance, compare, end
from edgefleet.agent.state import QualityWindow, Windows
from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Sketches, Switch
from edgefleet.protocol.serving import LiveStats
from support.agent_world import serving_model


def grown(requests: int, **sketches: object) -> LiveStats:
    return LiveStats(
        requests=requests,
        confidence_sum=0.9 * requests,
        confidence_count=requests,
        sketches=Sketches(**sketches),  # type: ignore[arg-type] # the test's own
    )


def after(windows: Windows, release: str, requests: int, now: float, **sketches: object) -> Windows:
    """A look at a release; at one that is new, after its warm-up, which had no requests."""
    if windows.filling is None:
        windows = advance(windows, serving_model(release), LiveStats(), now - 1.0)
    elif windows.filling.release != release:
        for before_s in (1.0 + limits.WARM_UP_S, 1.0):
            windows = advance(windows, serving_model(release), LiveStats(), now - before_s)
    return advance(windows, serving_model(release), grown(requests, **sketches), now)


def test_two_full_windows_of_one_release_are_a_steady_score() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 1.0)
    assert windows.scores is None
    windows = after(windows, "1", limits.WINDOW_REQUESTS, 2.0)
    assert windows.scores is not None
    assert (windows.scores.from_release, windows.scores.to_release) == ("1", "1")
    assert windows.scores.requests == limits.WINDOW_REQUESTS


def test_few_requests_fill_a_window_when_it_is_old() -> None:
    windows = after(Windows(), "1", limits.WINDOW_LEAST_REQUESTS - 1, 0.0)
    windows = after(windows, "1", 0, limits.WINDOW_S + 1)
    assert windows.full is None
    windows = after(windows, "1", 1, limits.WINDOW_S + 2)
    assert windows.full is not None


def test_a_new_release_is_compared_with_the_last_of_the_one_before() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 1.0)
    windows = after(windows, "1", 30, 2.0)
    windows = after(windows, "2", limits.WINDOW_REQUESTS, 3.0)
    assert windows.scores is not None
    assert (windows.scores.from_release, windows.scores.to_release) == ("1", "2")
    assert windows.scores.requests == 30


def test_what_tells_of_the_change_waits_until_it_was_told() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 1.0)
    windows = after(windows, "2", limits.WINDOW_REQUESTS, 2.0)
    change = windows.scores
    windows = after(windows, "2", limits.WINDOW_REQUESTS, 3.0)
    assert windows.scores == change
    windows = after(replace(windows, scores=None), "2", limits.WINDOW_REQUESTS, 4.0)
    assert windows.scores is not None
    assert windows.scores.from_release == "2"


def window(release: str = "1", errors: int = 0, **sketches: object) -> QualityWindow:
    return QualityWindow(
        release=release, since=0.0, requests=100, errors=errors, confidence_sum=90.0,
        confidence_count=100, sketches=Sketches(**sketches),  # type: ignore[arg-type] # the test's own
    )  # fmt: skip


def test_scores_say_how_much_slower_how_wrong_how_sure_and_how_different() -> None:
    scores = compare(
        window(latency={50: 100}, classes=(50, 50), inputs=(100,)),
        replace(
            window("2", 10, latency={58: 100}, classes=(75, 25), inputs=(0, 100)),
            confidence_sum=60.0,
        ),
    )
    assert scores.latency_log_ratio is not None
    assert scores.confidence_delta is not None
    assert abs(scores.latency_log_ratio - 0.693) < 0.02  # an octave is 8 buckets
    assert abs(scores.confidence_delta + 0.3) < 1e-9
    assert (scores.error_rate_delta, scores.class_drift, scores.input_drift) == (0.1, 0.25, 1.0)


def test_without_sketches_the_latency_is_what_serving_says_and_drift_is_not_known() -> None:
    before, now = (replace(window(), latency_us_p95=us) for us in (1000, 1300))
    scores = compare(before, now)
    assert scores.latency_log_ratio is not None
    assert abs(scores.latency_log_ratio - 0.262) < 0.001
    assert (scores.class_drift, scores.input_drift) == (None, None)
    assert compare(window(), window()).latency_log_ratio is None


def test_sketches_add_up_and_take_away_and_stay_bounded() -> None:
    one = Sketches(latency={1: 2, 5: 1}, confidence=(1, 2), classes=(3,), inputs=(0, 0, 4))
    two = Sketches(latency={5: 3}, confidence=(1,), classes=(0, 1), inputs=())
    assert bins.minus(bins.plus(one, two), two) == replace(one, classes=(3, 0))
    wide = Sketches(latency=dict.fromkeys(range(100), 1))
    merged = bins.plus(wide, Sketches()).latency
    assert (len(merged), sum(merged.values()), merged[36]) == (limits.LATENCY_BUCKETS, 100, 37)


def served(rate: float, windows: Windows, release: str, looks: range) -> Windows:
    """A look every ten seconds at a release that is asked so often in a second."""
    windows = advance(windows, serving_model(release), LiveStats(), 10.0 * looks[0] - 10.0)
    for look in looks:
        windows = after(windows, release, round(10 * rate), 10.0 * look)
    return windows


def test_the_rate_of_requests_is_compared_over_the_time_of_each_window() -> None:
    windows = served(10.0, Windows(), "1", range(1, 6))
    assert windows.scores is not None
    assert windows.scores.request_rate_change == 0.0
    scores = served(4.0, windows, "2", range(6, 12)).scores
    assert scores is not None
    assert (scores.from_release, scores.to_release) == ("1", "2")
    assert scores.request_rate_change is not None
    assert abs(scores.request_rate_change + 0.6) < 0.1


def test_a_rise_counts_as_much_as_the_fall_back() -> None:
    slow, fast = (QualityWindow(release="1", since=0.0, until=10.0, requests=n) for n in (40, 80))
    assert compare(slow, fast).request_rate_change == 0.5
    assert compare(fast, slow).request_rate_change == -0.5


def test_what_the_first_look_finds_counts_but_not_in_the_rate() -> None:
    windows = advance(Windows(), serving_model("1"), grown(100_000), 10.0)
    assert windows.full is None
    windows = served(10.0, windows, "1", range(2, 5))
    assert windows.full is not None
    assert windows.scores is not None
    assert windows.scores.request_rate_change == 0.0


def test_a_release_whose_clients_leave_says_so_without_any_request() -> None:
    windows = served(1.0, Windows(), "1", range(1, 30))
    windows = advance(replace(windows, scores=None), serving_model("2"), LiveStats(), 300.0)
    windows = advance(windows, serving_model("2"), LiveStats(), 300.0 + limits.WINDOW_S - 1)
    assert windows.scores is None
    windows = advance(windows, serving_model("2"), LiveStats(), 300.0 + limits.WINDOW_S)
    scores = windows.scores
    assert scores is not None
    assert (scores.from_release, scores.to_release) == ("1", "2")
    assert (scores.requests, scores.request_rate_change, scores.error_rate_delta) == (0, -1.0, None)
    assert windows.full is None  # the next window has nothing to be compared with


def test_thin_traffic_is_given_the_time_that_a_hundred_requests_take() -> None:
    windows = served(0.1, Windows(), "1", range(1, 60))
    assert windows.full is not None
    windows = advance(replace(windows, scores=None), serving_model("2"), LiveStats(), 600.0)
    assert advance(windows, serving_model("2"), LiveStats(), 1500.0).scores is None
    assert advance(windows, serving_model("2"), LiveStats(), 1800.0).scores is not None


def test_a_switch_of_another_model_ends_the_window() -> None:
    windows = after(Windows(), "1", limits.WINDOW_LEAST_REQUESTS, 10.0)
    ended = end(windows, 20.0)
    assert ended.full is not None
    assert (ended.full.requests, ended.full.until) == (limits.WINDOW_LEAST_REQUESTS, 20.0)
    assert ended.filling is not None
    assert (ended.filling.requests, ended.filling.opened) == (0, 20.0)
    assert ended.scores is None, "the end of a window before it is full makes no score"


def warmed(windows: Windows, now: float) -> Windows:
    """A look that finds no requests, and the warm-up over."""
    return advance(windows, serving_model("1"), LiveStats(), now)


def answers(windows: Windows, release: str, seconds: range, us: Callable[[int], int]) -> Windows:
    """A look each second at a release that answers ten requests, each in ``us(second)``."""
    for second in seconds:
        stats = grown(10, latency={bucket(us(second)): 10})
        windows = advance(windows, serving_model(release), stats, float(second))
    return windows


@pytest.mark.parametrize("warm_up_s", [10, 20, 29])
def test_a_warm_up_is_no_slower_release(warm_up_s: int) -> None:
    """Three times the latency for some seconds after the switch. Everything else counts."""
    windows = answers(Windows(), "1", range(100), lambda _: 1000)
    windows = replace(windows, scores=None)
    windows = answers(
        windows, "2", range(100, 150), lambda second: 3000 if second < 100 + warm_up_s else 1000
    )
    scores = windows.scores
    assert scores is not None
    assert (scores.from_release, scores.to_release) == ("1", "2")
    assert scores.latency_log_ratio == pytest.approx(0.0, abs=0.05)
    assert scores.request_rate_change == pytest.approx(0.0, abs=0.05)


def test_a_release_that_stays_slow_is_slower() -> None:
    windows = replace(answers(Windows(), "1", range(100), lambda _: 1000), scores=None)
    scores = answers(windows, "2", range(100, 150), lambda _: 3000).scores
    assert scores is not None
    assert scores.latency_log_ratio == pytest.approx(math.log(3), abs=0.1)


def test_errors_of_the_warm_up_count() -> None:
    windows = replace(answers(Windows(), "1", range(100), lambda _: 1000), scores=None)
    broken = replace(grown(40), errors=40)
    windows = advance(windows, serving_model("2"), broken, 101.0)
    scores = answers(windows, "2", range(102, 150), lambda _: 1000).scores
    assert scores is not None
    assert scores.error_rate_delta is not None
    assert scores.error_rate_delta > 0.05


def test_a_new_process_warms_up_and_the_switch_of_another_model_does_too() -> None:
    windows = replace(answers(Windows(), "1", range(100), lambda _: 1000), scores=None)
    cold = grown(50, latency={bucket(3000): 50})
    anew = advance(windows, serving_model("1"), cold, 101.0, is_new_process=True)
    beside = advance(end(windows, 100.0, (DETECTOR,)), serving_model("1"), cold, 101.0)
    for begun in (anew, beside):
        scores = answers(begun, "1", range(131, 150), lambda _: 1000).scores
        assert scores is not None
        assert scores.latency_log_ratio == pytest.approx(0.0, abs=0.05)


DETECTOR = Switch(model="detector", release="2")
FACES = Switch(model="faces", release="3")


def test_scores_across_the_switch_of_another_model_name_it_and_wait_to_be_reported() -> None:
    windows = after(Windows(), "1", limits.WINDOW_LEAST_REQUESTS, 10.0)
    windows = warmed(end(windows, 20.0, (DETECTOR,)), 50.0)
    windows = after(windows, "1", limits.WINDOW_REQUESTS, 60.0)
    assert windows.scores is not None
    assert (windows.scores.from_release, windows.scores.to_release) == ("1", "1")
    assert windows.scores.switched == DETECTOR
    assert after(windows, "1", limits.WINDOW_REQUESTS, 70.0).scores is windows.scores
    reported = replace(windows, scores=None)
    plain = after(reported, "1", limits.WINDOW_REQUESTS, 70.0).scores
    assert plain is not None
    assert plain.switched is None


@pytest.mark.parametrize("together", [True, False])
def test_no_scores_span_two_switches_of_other_models(together: bool) -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 10.0)
    if together:
        windows = end(windows, 20.0, (DETECTOR, FACES))
    else:
        windows = end(windows, 20.0, (DETECTOR,))
        windows = after(windows, "1", limits.WINDOW_LEAST_REQUESTS - 1, 25.0)
        windows = end(windows, 30.0, (FACES,))
    assert windows.full is None
    windows = after(warmed(windows, 70.0), "1", limits.WINDOW_REQUESTS, 80.0)
    assert windows.full is not None
    assert windows.scores is None


def test_a_switch_just_before_the_models_own_leaves_no_baseline() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 10.0)
    windows = after(end(windows, 20.0, (DETECTOR,)), "1", 1, 25.0)
    windows = after(windows, "2", limits.WINDOW_REQUESTS, 80.0)
    assert windows.full is not None
    assert windows.scores is None


def test_the_end_of_a_process_keeps_the_switch_before_it() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 10.0)
    windows = end(end(windows, 20.0, (DETECTOR,)), 21.0)
    scores = after(warmed(windows, 60.0), "1", limits.WINDOW_REQUESTS, 70.0).scores
    assert scores is not None
    assert scores.switched == DETECTOR


def test_too_few_requests_before_a_switch_are_no_baseline() -> None:
    windows = after(Windows(), "1", limits.WINDOW_REQUESTS, 10.0)
    windows = after(windows, "1", limits.WINDOW_LEAST_REQUESTS - 1, 20.0)
    ended = end(windows, 30.0)
    assert ended.full is windows.full
    assert ended.filling is not None
    assert ended.filling.requests == 0
    assert end(Windows(), 30.0) == Windows()
