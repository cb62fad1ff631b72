"""Charts show the right numbers."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.operator import HistoryPoint
from edgefleet.protocol.rollout import Status
from edgefleet.web.charts import (
    Part,
    paired_bars,
    plain_bar,
    release_classes,
    shares,
    stacked_bar,
    wave_bar,
    wave_shares,
)
from edgefleet.web.outcome_counts import by_wave
from edgefleet.web.release_chart import Event, stacked_area, thinned, time_ticks
from support.scenes import rollout_in

SVG = "{http://www.w3.org/2000/svg}"
RELEASES = [("3", "r2"), ("2", "r1")]


def drawn(svg: str) -> ET.Element:
    """The chart, parsed: it is well-formed."""
    return ET.fromstring(svg)


def rects(svg: str, css: str) -> list[ET.Element]:
    return [rect for rect in drawn(svg).iter(f"{SVG}rect") if rect.get("class") == css]


def width(rect: ET.Element) -> float:
    return float(rect.get("width", "").rstrip("%"))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_shares_fill_the_bar_and_hide_nobody(counts: list[int]) -> None:
    widths = shares(counts, 0.01)
    assert sum(widths) == pytest.approx(1.0 if any(counts) else 0.0)
    for number, wide in zip(counts, widths, strict=True):
        assert (wide >= 0.01 - 1e-9) if number else wide == 0


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=12))
def test_of_two_parts_the_larger_is_never_the_thinner(counts: list[int]) -> None:
    ranked = sorted(zip(counts, shares(counts, 0.01), strict=True))
    for (_, thin), (_, wide) in pairwise(ranked):
        assert thin <= wide + 1e-9


def test_a_single_failure_in_a_million_is_drawn() -> None:
    svg = stacked_bar([Part("healthy", 999_999, "healthy"), Part("failed", 1, "failed")], "now")
    assert width(rects(svg, "failed")[0]) >= 0.5


def test_a_bar_tells_its_content_to_those_who_cannot_see_it() -> None:
    svg = stacked_bar([Part("release 2", 1200, "r1"), Part("release 1", 0, "r0")], "digits")
    assert drawn(svg).get("aria-label") == "digits: release 2 1,200"
    assert drawn(svg).get("role") == "img"


def test_hostile_names_stay_text() -> None:
    svg = stacked_bar([Part("<script>alert(1)</script>", 1, '"><script>')], '"><script>')
    assert "<script" not in svg
    assert drawn(svg).get("aria-label", "").startswith('"><script>')


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20, unique=True).map(sorted))
def test_every_wave_has_a_segment_that_can_be_seen(percents: list[float]) -> None:
    widths = wave_shares(percents)
    assert sum(widths) == pytest.approx(1.0)
    assert min(widths) > 0.015


def test_the_mark_of_the_cut_stands_at_the_end_of_the_open_wave() -> None:
    waves = by_wave(rollout_in(Status.RUNNING))
    one, ten, _ = wave_shares([1, 10, 100])
    picture = drawn(wave_bar(waves, 1003, compact=False))
    line = next(line for line in picture.iter(f"{SVG}line") if line.get("class") == "cut")
    assert float(line.get("x1", "").rstrip("%")) == pytest.approx((one + ten) * 100, abs=0.01)
    assert "cut 101 of 1,003" in [text.text for text in picture.iter(f"{SVG}text")]


def test_a_wave_not_opened_yet_is_only_outlined() -> None:
    svg = wave_bar(by_wave(rollout_in(Status.PLANNED)), None, compact=False)
    assert len(rects(svg, "ahead")) == 3
    assert not rects(svg, "healthy")
    assert "wave 100\u202f% not opened yet" in drawn(svg).get("aria-label", "")


def test_each_status_has_a_wave_bar() -> None:
    for status in Status:
        for compact in (True, False):
            picture = drawn(wave_bar(by_wave(rollout_in(status)), 1003, compact=compact))
            assert len(list(picture.iter(f"{SVG}g"))) == 3


def test_canary_and_control_are_drawn_on_one_scale_with_the_limit() -> None:
    svg = paired_bars(0.5, 1.0, limit=0.9, label="confidence")
    assert width(rects(svg, "control")[0]) == pytest.approx(
        2 * width(rects(svg, "canary")[0]), 0.01
    )
    line = next(line for line in drawn(svg).iter(f"{SVG}line"))
    assert float(line.get("x1", "").rstrip("%")) == pytest.approx(90 / 1.1, abs=0.01)


def test_what_was_not_measured_has_no_bar() -> None:
    svg = paired_bars(None, None, limit=None, label="confidence")
    assert not rects(svg, "canary")
    assert not rects(svg, "control")


def test_a_plain_bar_is_as_long_as_its_share_of_the_longest() -> None:
    assert width(rects(plain_bar(5, 20, "crash"), "plain")[0]) == pytest.approx(25)


def test_a_release_keeps_its_colour_when_newer_ones_come() -> None:
    before = release_classes(["3", "2", "1"], 7)
    after = release_classes([str(number) for number in range(6, 0, -1)], 7)
    assert all(after[name] == css for name, css in before.items())


def test_beyond_the_colours_the_oldest_share_one() -> None:
    classes = release_classes([str(number) for number in range(10, 0, -1)], 7)
    assert {classes[str(number)] for number in (1, 2, 3)} == {"other"}
    assert len({classes[str(number)] for number in range(4, 11)}) == 7


def points(*counts: tuple[float, int, int]) -> list[HistoryPoint]:
    return [HistoryPoint(at=at, on_release={"3": new, "2": old}) for at, new, old in counts]


def test_the_areas_fill_the_plot_from_bottom_to_top() -> None:
    svg = stacked_area(points((0, 0, 100), (60, 50, 50)), RELEASES, [], "share")
    lower, upper = (path.get("d") for path in drawn(svg).iter(f"{SVG}path"))
    assert lower == "M0 100L1000 50L1000 100L0 100Z"
    assert upper == "M0 0L1000 0L1000 50L0 100Z"


def test_a_moment_without_devices_has_no_share() -> None:
    svg = stacked_area(points((0, 0, 0), (60, 0, 0)), RELEASES, [], "share")
    assert "Now: release" not in drawn(svg).get("aria-label", "")


def test_before_any_device_ran_it_the_plot_is_empty_up_to_an_edge() -> None:
    svg = stacked_area(points((0, 0, 0), (30, 0, 9), (60, 0, 9)), RELEASES, [], "share")
    upper = list(drawn(svg).iter(f"{SVG}path"))[1].get("d")
    assert upper == "M0 100L500 100L500 0L1000 0L1000 100L500 100L500 100L0 100Z"


def test_events_outside_the_picture_are_left_out() -> None:
    events = [Event(30, "10 %", "opened"), Event(90, "100 %", "opened")]
    svg = stacked_area(points((0, 0, 9), (60, 5, 4)), RELEASES, events, "share")
    groups = [g for g in drawn(svg).iter(f"{SVG}g") if (g.get("class") or "").startswith("event")]
    assert [g.findtext(f"{SVG}text") for g in groups] == ["10 %"]
    assert groups[0].find(f"{SVG}line").get("x1") == "50%"


def test_names_of_events_that_crowd_stand_in_rows_or_give_way() -> None:
    events = [Event(10 + number / 100, f"wave {number}", "opened") for number in range(5)]
    svg = stacked_area(points((0, 0, 9), (60, 5, 4)), RELEASES, events, "share")
    groups = [g for g in drawn(svg).iter(f"{SVG}g") if (g.get("class") or "").startswith("event")]
    rows = [g.find(f"{SVG}text").get("y") for g in groups if g.find(f"{SVG}text") is not None]
    assert len(groups) == 5
    assert len(rows) == len(set(rows)) == 3


@given(st.floats(1, 2e9), st.floats(2, 10**6))
def test_ticks_are_round_rising_and_few(start: float, length: float) -> None:
    ticks = time_ticks(start, start + length)
    assert 0 < len(ticks.at) <= 6 or length > 86400 * 6
    assert all(at % ticks.step_s == 0 for at in ticks.at)
    assert list(ticks.at) == sorted(ticks.at)
    assert all(start <= at <= start + length for at in ticks.at)


def test_thinning_keeps_the_ends() -> None:
    many = points(*((float(at), at, 1000 - at) for at in range(1000)))
    few = thinned(many, 10)
    assert len(few) == 10
    assert (few[0], few[-1]) == (many[0], many[-1])


def test_no_position_is_written_with_an_exponent() -> None:
    svg = stacked_area(
        points((0, 1, 10**9), (1e-3, 1, 10**9), (60, 1, 10**9)), RELEASES, [], "share"
    )
    assert not re.search(
        r"\d[eE]-?\d", " ".join(path.get("d", "") for path in drawn(svg).iter(f"{SVG}path"))
    )
