"""Cuts of waves: exact, nested, independent between rollouts, each device in exactly one wave."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.base.ids import MASK64, device_hash, mix64
from edgefleet.protocol.rollout import Verb
from edgefleet.rollout.fleet import cut
from support.fleets import memory_hub
from support.plans import MODEL, spec

HASHES = np.array([device_hash(f"device-{number}") for number in range(20_000)], np.uint64)
PERCENTS = st.lists(
    st.floats(0.01, 100).map(lambda percent: round(percent, 2)), min_size=1, max_size=5, unique=True
).map(lambda found: (*sorted(percent for percent in found if percent < 100), 100.0))


@given(st.lists(st.integers(0, MASK64), min_size=1, max_size=50), st.integers(0, MASK64))
def test_positions_of_many_are_those_of_each(hashes: list[int], salt: int):
    found = cut.positions(np.array(hashes, np.uint64), salt)
    assert found.tolist() == [mix64(value ^ salt) for value in hashes]


def test_positions_do_not_change_the_hashes():
    before = HASHES[:100].copy()
    cut.positions(HASHES[:100], 99)
    assert (HASHES[:100] == before).all()


@given(st.decimals("0.01", "100", places=2), st.integers(1, 2_000_000))
def test_the_count_is_the_exact_ceiling_of_the_percent_as_written(percent, population: int):
    exact = Fraction(str(percent)) * population / 100
    assert cut.wanted(float(percent), population) == math.ceil(exact)


def test_a_percent_that_binary_fractions_miss_is_cut_exactly():
    assert math.ceil(0.07 * 10_000 / 100) == 8  # the result of floating-point arithmetic
    assert cut.wanted(0.07, 10_000) == 7


@given(st.floats(0.001, 100), st.integers(1, 5000), st.integers(0, MASK64))
def test_exactly_so_many_lie_below_the_threshold(percent: float, population: int, salt: int):
    places = cut.positions(HASHES[:population], salt)
    made = cut.cut(places, percent)
    assert cut.below(places, made.threshold) == made.count == cut.wanted(percent, population)


def test_one_percent_lies_inside_ten_inside_all():
    places = cut.positions(HASHES, 7)
    thresholds = [cut.cut(places, percent).threshold for percent in (1, 10, 100)]
    inside = [{int(row) for row in np.flatnonzero(places < t)} for t in thresholds[:2]]
    assert inside[0] < inside[1]
    assert thresholds[2] == cut.EVERYONE


def test_a_wave_is_never_cut_below_the_last_one_when_the_fleet_shrank():
    places = cut.positions(HASHES[:1000], 7)
    first = cut.cut(places, 10)
    left = np.sort(places)[50:250]  # 50 of the wave, 150 beyond it
    second = cut.cut(left, 11, floor=first.threshold)
    assert second == cut.Cut(50, first.threshold, 200)


def test_a_cut_of_an_empty_population_is_empty():
    assert cut.cut(HASHES[:0], 10) == cut.Cut(0, 0, 0)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 1 << 63), (0, MASK64), (77, 78)])
def test_the_cuts_of_two_rollouts_are_independent(one: int, other: int):
    """Chi-square over a 10 x 10 table of both positions; 99 degrees of freedom, 0.1 % level."""
    rows = (cut.positions(HASHES, one) >> np.uint64(32)) * 10 >> np.uint64(32)
    columns = (cut.positions(HASHES, other) >> np.uint64(32)) * 10 >> np.uint64(32)
    counts = np.bincount((rows * 10 + columns).astype(np.int64), minlength=100)
    expected = len(HASHES) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 148.23


def test_the_chi_square_test_sees_cuts_that_are_not_independent():
    rows = (cut.positions(HASHES, 1) >> np.uint64(32)) * 10 >> np.uint64(32)
    turned = cut.positions(HASHES, 1) + np.uint64(1 << 61)  # the same hash, rotated
    columns = (turned >> np.uint64(32)) * 10 >> np.uint64(32)
    counts = np.bincount((rows * 10 + columns).astype(np.int64), minlength=100)
    expected = len(HASHES) / 100
    assert ((counts - expected) ** 2 / expected).sum() > 148.23


@settings(max_examples=40)
@given(
    sites=st.lists(st.sampled_from(["lyon", "oslo", "rome"]), min_size=1, max_size=120),
    percents=PERCENTS,
    salt=st.integers(0, MASK64),
)
def test_every_eligible_device_is_in_exactly_one_wave(
    sites: list[str], percents: tuple[float, ...], salt: int
):
    hub = memory_hub(0, "1")
    for number, site in enumerate(["lyon", *sites]):
        hub.add_device(f"d{number}", labels={"site": site})
    rollout = hub.start(spec("1", *percents, selector="site in (lyon,oslo)"), salt=salt)
    active = hub.engine.rollout(rollout)
    eligible = [row for row, site in enumerate(["lyon", *sites]) if site != "rome"]
    inside: set[int] = set()
    while rollout in hub.engine.open_rollouts():
        wave = active.state.open_wave
        assert wave is not None
        members = {row for row in eligible if active.inside(row)}
        assert members == set(active.members().tolist())
        assert len(members) == wave.cut == cut.wanted(wave.percent or 0, len(eligible))
        assert members >= inside
        for row in members - inside:
            assert active.position(row).wave is not None
            assert hub.engine.desired(row, MODEL) == "1"
        for row in set(eligible) - members:
            assert active.position(row).wave is None
            assert hub.engine.admission.offers(row, hub.now) == ()
        inside = members
        hub.command(rollout, Verb.ADVANCE)
    firsts = [active.position(row).wave for row in eligible]
    assert None not in firsts
    for index, wave in enumerate(active.state.waves):
        assert sum(first is not None and first <= index for first in firsts) == wave.cut
