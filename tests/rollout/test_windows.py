"""Maintenance windows in local time, also in the nights in which the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.base.errors import OperatorError
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.rollout import WindowSpec
from edgefleet.rollout.constraints import window
from edgefleet.rollout.constraints.window import Hours, check_windows, is_open, next_open

ZONES = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def open_at(text: str, *windows: WindowSpec, zone: str = "UTC") -> bool:
    return is_open(windows, zone, utc_offset_s, at(text))


NIGHT = WindowSpec(start="22:00", end="04:00", days=("fri",), timezone="Europe/Paris")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-01-02T21:59:59+01:00", False),
        ("2026-01-02T22:00:00+01:00", True),  # a Friday
        ("2026-01-03T03:59:59+01:00", True),  # after midnight it is still the window of Friday
        ("2026-01-03T04:00:00+01:00", False),
        ("2026-01-03T22:30:00+01:00", False),
        ("2026-07-03T22:00:00+02:00", True),  # in summer time as well
    ],
)
def test_a_window_past_midnight(when: str, expected: bool):
    assert open_at(when, NIGHT) is expected


def test_a_window_in_the_hour_that_is_lost_does_not_open_that_night():
    lost = WindowSpec(start="02:00", end="03:00", timezone="Europe/Paris")
    night = at("2026-03-29T00:00:00+01:00")
    assert not any(is_open((lost,), "UTC", utc_offset_s, night + 60 * m) for m in range(24 * 60))
    assert next_open((lost,), "UTC", utc_offset_s, night) == at("2026-03-30T02:00:00+02:00")


def test_a_window_in_the_hour_that_comes_twice_opens_twice():
    twice = WindowSpec(start="02:00", end="03:00", timezone="Europe/Paris")
    night = at("2026-10-25T00:00:00+02:00")
    minutes = sum(is_open((twice,), "UTC", utc_offset_s, night + 60 * m) for m in range(24 * 60))
    assert minutes == 120


@settings(max_examples=300)
@given(
    now=st.integers(1_767_225_600, 1_798_761_600),  # the year 2026
    zone=st.sampled_from(ZONES),
    start=st.integers(0, 1439),
    end=st.integers(0, 1439),
    days=st.sets(st.sampled_from(window.DAYS)),
)
def test_a_window_is_open_exactly_at_its_local_times(
    now: int, zone: str, start: int, end: int, days: set[str]
):
    def clock(minutes: int) -> str:
        return f"{minutes // 60:02d}:{minutes % 60:02d}"

    wanted = WindowSpec(start=clock(start), end=clock(end), days=tuple(days), timezone=zone)
    wall = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    expected = False
    for back in (0, 1):
        day = wall.date() - timedelta(days=back)
        begin = datetime(day.year, day.month, day.day) + timedelta(minutes=start)  # noqa: DTZ001 - local time
        length = end - start if end > start else end - start + 1440
        chosen = not days or window.DAYS[day.weekday()] in days
        expected |= chosen and begin <= wall < begin + timedelta(minutes=length)
    assert is_open((wanted,), "UTC", utc_offset_s, float(now)) is expected


@settings(max_examples=60)
@given(
    now=st.integers(1_767_225_600, 1_798_761_600),
    steps=st.lists(st.integers(1, 200_000), max_size=12),
    zone=st.sampled_from(ZONES),
)
def test_cached_hours_equal_computed_hours(now: int, steps: list[int], zone: str):
    windows = (
        WindowSpec(start="01:30", end="02:30", timezone=zone),
        WindowSpec(start="23:00", end="01:00", timezone="device", days=("sun",)),
    )
    hours = Hours(windows, utc_offset_s)
    moment = float(now)
    for step in steps:
        assert hours.open(zone, moment) is is_open(windows, zone, utc_offset_s, moment)
        assert hours.next_open(zone, moment) == next_open(windows, zone, utc_offset_s, moment)
        moment += step


def test_a_device_goes_by_its_own_zone_and_by_utc_without_one():
    hours = Hours((WindowSpec(start="02:00", end="03:00", timezone="device"),), utc_offset_s)
    moment = at("2026-01-05T02:30:00+05:30")
    assert hours.open("Asia/Kolkata", moment)
    assert not hours.open("Europe/Paris", moment)
    assert not hours.open(None, moment)
    assert not hours.open("No/Where", moment)
    assert hours.open(None, at("2026-01-05T02:30:00+00:00"))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (WindowSpec(start="24:00", end="01:00"), "windows[0].start"),
        (WindowSpec(start="1:00", end="02:00"), "windows[0].start"),
        (WindowSpec(start="01:00", end="02:60"), "windows[0].end"),
        (WindowSpec(start="01:00", end="02:00", days=("monday",)), "windows[0].days"),
        (WindowSpec(start="01:00", end="02:00", timezone="Paris"), "windows[0].timezone"),
        (WindowSpec(start="01:00", end="02:00", timezone="../etc"), "windows[0].timezone"),
    ],
)
def test_a_bad_window_is_refused_with_its_field(wanted: WindowSpec, field: str):
    with pytest.raises(OperatorError) as caught:
        check_windows((wanted,), utc_offset_s, 0.0)
    assert (caught.value.code, caught.value.field) == ("window_invalid", field)
