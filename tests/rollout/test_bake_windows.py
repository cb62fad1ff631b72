"""The window test of the bake, and its promise."""

import itertools
import math
from collections.abc import Iterable

import pytest

from edgefleet.protocol.device import Sketches, Telemetry
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout.evidence import windows
from edgefleet.rollout.evidence.windows import ERRORS, LATENCY, Counted, Finding, OpenWindow
from edgefleet.rollout.lifecycle.bake import WindowBets

LIMIT = 0.05
BAR = math.log(1000)
DISTINCT = math.log(100)
BAKE = 720  # windows


def served(errors: int = 0, requests: int = 20, slow: int = 0) -> Telemetry:
    return Telemetry(
        release="2", requests=requests, errors=errors, confidence_sum=0, confidence_count=0, latency_us_p50=1,
        latency_us_p95=1, memory_mib=1, sketches=Sketches(latency={60: requests - slow, 200: slow}),
    )  # fmt: skip


def counted(flagged: int, devices: int, strict: int | None = None) -> Counted:
    return Counted(devices, flagged, tuple(range(flagged if strict is None else strict)))


def after_all(
    seen: Iterable[tuple[Counted, Counted]], bets: WindowBets | None = None
) -> tuple[int | None, Finding]:
    """The number of the first window with a finding, and the finding."""
    bets = bets or WindowBets()
    for number, (canary, control) in enumerate(seen, 1):
        bets = windows.after(bets, canary, control, limit=LIMIT, windows=BAKE)
        found = windows.finding(bets, limit=LIMIT, log_bar=BAR, distinct_bar=DISTINCT)
        if found is not Finding.NOTHING:
            return number, found
    return None, Finding.NOTHING


@pytest.mark.parametrize("devices", [3, 5, 30, 1000])
def test_a_release_that_fails_everywhere_is_found_in_six_windows(devices: int) -> None:
    bad = (counted(devices, devices), counted(0, 3))
    good = (counted(0, devices), counted(0, 3))
    assert after_all([bad] * 10) == (6, Finding.WORSE)
    assert after_all([*[good] * 200, *[bad] * 10]) == (206, Finding.WORSE)


def test_the_control_has_a_veto_and_its_absence_is_told() -> None:
    assert after_all([(counted(100, 100), counted(3, 3))] * 10) == (6, Finding.SHARED)
    assert after_all([(counted(100, 100), counted(1, 1))] * 10) == (6, Finding.ALONE)
    assert after_all([(counted(100, 100), counted(1, 3))] * 10) == (6, Finding.WORSE)


def test_a_fifth_of_the_devices_is_found_later() -> None:
    number, found = after_all([(counted(20, 100), counted(0, 3))] * 30)
    assert found is Finding.WORSE
    assert number in range(7, 14)


def test_one_broken_device_in_a_small_fleet_is_no_finding() -> None:
    assert after_all([(counted(1, 5), Counted())] * BAKE) == (None, Finding.NOTHING)


def test_many_devices_flagged_once_but_never_clearly_are_no_finding() -> None:
    assert after_all([(counted(20, 100, strict=0), Counted())] * BAKE) == (None, Finding.NOTHING)


def test_at_the_limit_the_wealth_is_one_on_average_whatever_the_devices_share() -> None:
    """The whole promise: the starts sum to 1, and each bet is fair at a mean of exactly L."""
    total, few = 0.0, 8
    for outcome in itertools.product((0, 1), repeat=few):
        bets, chance = WindowBets(), 1.0
        for bad in outcome:  # all devices or none: a shock that they share
            chance *= LIMIT if bad else 1 - LIMIT
            bets = windows.after(bets, counted(100 * bad, 100), Counted(), limit=LIMIT, windows=few)
        total += chance * windows.wealth(bets)
    assert total == pytest.approx(1.0)


def test_bets_go_on_after_they_were_stored() -> None:
    bad = (counted(5, 5), counted(0, 3))
    stored = WindowBets()
    for _ in range(3):
        stored = windows.after(stored, *bad, limit=LIMIT, windows=BAKE)
    assert after_all([bad] * 10, decode(encode(stored), WindowBets)) == (3, Finding.WORSE)


def test_bets_that_begin_again_have_nothing_and_need_as_long_as_before() -> None:
    bad = (counted(5, 5), counted(0, 3))
    bets = WindowBets()
    for _ in range(6):
        bets = windows.after(bets, *bad, limit=LIMIT, windows=BAKE)
    again = windows.begun_again(bets)
    assert windows.wealth(again) == 0
    assert (again.share, again.control) == (1.0, 0.0)
    assert after_all([bad] * 10, again) == (6, Finding.WORSE)


@pytest.mark.parametrize(
    ("errors", "flagged", "strict"), [(4, 0, 0), (5, 1, 0), (7, 1, 0), (8, 1, 1)]
)
def test_a_device_is_flagged_by_what_chance_cannot_explain(
    errors: int, flagged: int, strict: int
) -> None:
    window = OpenWindow()
    window.add(7, served(errors - 1, 10), 1000, is_control=False)
    window.add(7, served(1, 10), 1000, is_control=False)
    found = window.counted(ERRORS, 0.05)
    assert (found.devices, found.flagged, found.strict) == (1, flagged, (7,) * strict)
    assert window.counted(ERRORS, 0.05, is_control=True).devices == 0


def test_slow_requests_are_counted_above_the_limit() -> None:
    window = OpenWindow()
    window.add(7, served(slow=10), 100_000, is_control=False)
    assert window.counted(LATENCY, 0.05).flagged == 1
    window = OpenWindow()
    window.add(7, served(slow=10), 1 << 40, is_control=False)
    assert window.counted(LATENCY, 0.05).flagged == 0


def test_a_window_is_ready_when_half_of_the_devices_have_served_enough() -> None:
    window = OpenWindow()
    assert not window.is_ready
    window.add(1, served(0, 0), 1, is_control=False)
    for row, requests in ((2, 10), (3, 9), (4, 1)):
        window.add(row, served(0, requests), 1, is_control=False)
    assert not window.is_ready  # 1 of 3 that served
    window.add(3, served(1, 1), 1, is_control=False)
    assert window.is_ready


def test_where_the_previous_release_was_above_a_limit_it_is_the_limit() -> None:
    def limits(rate: float | None, p95_us: int | None) -> tuple[float, int]:
        allowed, limit_us = windows.limits_of(
            max_error_rate=0.05, max_latency_ms=100, max_latency_increase=0.15,
            control_error_rate=rate, control_p95_us=p95_us, margin=0.02,
        )  # fmt: skip
        return round(allowed[ERRORS], 9), limit_us

    assert limits(None, None) == (0.05, 100_000)
    assert limits(0.03, 60_000) == (0.05, 100_000)
    assert limits(0.10, 150_000) == (0.12, 172_500)
