"""The comparison by site and time: its guarantee, exactly, and what it makes of an outage."""

import math
from itertools import product

import pytest

from edgefleet.rollout.evidence.strata import (
    ODDS,
    Group,
    Site,
    exceeds_chance,
    grown,
    log_evidence,
)


def _chance(group: Group) -> float:
    dark = group.dark_canaries + group.dark_controls
    return (
        math.comb(group.canaries, group.dark_canaries)
        * math.comb(group.controls, group.dark_controls)
        / math.comb(group.canaries + group.controls, dark)
    )


@pytest.mark.parametrize(("canaries", "controls"), [(1, 1), (3, 57), (10, 4), (0, 5), (6, 0)])
def test_each_factor_has_a_mean_of_one_by_chance_alone(canaries: int, controls: int) -> None:
    for dark in range(canaries + controls + 1):
        means = [0.0] * len(ODDS)
        for bad in range(max(0, dark - controls), min(dark, canaries) + 1):
            group = Group(canaries, controls, bad, dark - bad)
            for place, factor in enumerate(group.log_factors()):
                means[place] += _chance(group) * math.exp(factor)
        assert means == pytest.approx([1.0] * len(ODDS))


def test_two_groups_together_have_a_mean_of_one() -> None:
    mean = 0.0
    for first, second in product(range(3), range(4)):
        groups = (Group(2, 6, first, 2 - first), Group(3, 5, second, 3 - second))
        mean += math.prod(map(_chance, groups)) * math.exp(log_evidence(grown((), groups)))
    assert mean == pytest.approx(1.0)


def test_a_site_that_goes_dark_whole_changes_nothing() -> None:
    assert Group(12, 48, 12, 48).log_factors() == (0.0,) * len(ODDS)
    assert Group(0, 60, 0, 60).log_factors() == (0.0,) * len(ODDS)


def test_three_canaries_alone_of_sixty_devices_are_strong_evidence() -> None:
    bets = grown((), [Group(3, 57, 3, 0)])
    assert log_evidence(bets) > math.log(1000)
    assert log_evidence(grown((), [Group(3, 57, 0, 3)])) < 0


def test_the_order_of_groups_makes_no_difference() -> None:
    groups = [Group(3, 57, 1, 0), Group(4, 9, 2, 2), Group(8, 30, 0, 3)]
    there = grown((), groups)
    back = grown((), groups[::-1])
    assert there == pytest.approx(back)
    assert grown(grown((), groups[:1]), groups[1:]) == there


def test_a_group_without_enough_control_is_not_compared() -> None:
    assert not Group(9, 2).has_control
    assert Group(8, 2).has_control
    assert grown((), [Group(9, 2, 9, 0)]) == (0.0,) * len(ODDS)


def test_an_outage_is_one_of_the_site() -> None:
    assert Group(3, 57, 3, 57).is_outage(0.01)
    assert Group(4, 56, 3, 26).is_outage(0.01)  # of half of the site
    assert not Group(3, 57, 3, 0).is_outage(0.01)  # canaries alone
    assert not Group(3, 57, 0, 57).is_outage(0.01)  # no canary to excuse
    assert not Group(3, 57, 1, 1).is_outage(0.01)  # any device may go dark
    assert not Group(12, 48, 12, 6).is_outage(0.01)  # canaries much more often


def test_the_control_must_break_the_limit_by_itself() -> None:
    assert Group(10, 200, 1, 8).is_outage(0.01)
    assert not Group(10, 200, 1, 8).is_outage(0.05)


def test_a_site_stands_out_by_more_than_chance() -> None:
    assert exceeds_chance(Site(5, 8), Site(5, 40), sites=5)
    assert not exceeds_chance(Site(2, 4), Site(4, 12), sites=5)
    assert not exceeds_chance(Site(5, 8), Site(5, 8), sites=1)
