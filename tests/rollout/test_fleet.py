"""The fleet's columns."""

import pytest

from edgefleet.base.ids import device_hash
from edgefleet.protocol.device import Phase
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.selector import parse


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(listening_since=100.0, offline_after_s=30)
    for number in range(3000):  # more than the initial capacity of the columns
        fleet.add(f"d{number}", ("x86", "nano")[number % 2], {"site": f"s{number % 3}"})
    return fleet


def test_a_device_is_found_by_name_and_by_row(fleet: Fleet):
    row = fleet.row("d2999")
    assert row == 2999
    assert (fleet.name(row), fleet.profile(row)) == ("d2999", "nano")
    assert (fleet.labels(row), fleet.hash(row)) == ({"site": "s2"}, device_hash("d2999"))
    assert fleet.row("nobody") is None
    assert len(fleet) == 3000


def test_a_name_is_enrolled_once(fleet: Fleet):
    with pytest.raises(ValueError, match="already"):
        fleet.add("d7", "x86", {})


def test_a_check_in_is_recorded(fleet: Fleet):
    assert (fleet.last_seen(5), fleet.models.reports(5)) == (None, ())
    fleet.observe(5, 120.0, model="digits", release="2", phase=Phase.TRIAL)
    assert fleet.last_seen(5) == 120.0
    (report,) = fleet.models.reports(5)
    assert (report.model, report.release, report.phase) == ("digits", "2", Phase.TRIAL)
    assert fleet.online(5, 150)
    assert not fleet.online(5, 151)
    fleet.observe(5, 130.0, model=None, release=None, phase=Phase.IDLE)
    assert fleet.models.reports(5) == ()


def test_a_sequence_number_is_accepted_once_and_only_rising(fleet: Fleet):
    tried = [5, 5, 4, 6, 7]
    assert [fleet.accept_seq(3, seq) for seq in tried] == [True, False, False, True, True]
    assert fleet.last_seq(3) == 7
    assert not fleet.accept_seq(3, 1 << 70)
    assert fleet.last_seq(3) == 0  # the numbering has begun anew
    assert fleet.last_seq(4) == 0


def test_a_selector_is_evaluated_once_per_distinct_label_set(fleet: Fleet):
    assert fleet.label_set_count == 3
    assert fleet.selected(parse("site=s1")).sum() == 1000
    assert fleet.selected(parse("")).all()
    assert fleet.label_keys == {"site"}


def test_the_facts_version_grows_only_when_facts_change(fleet: Fleet):
    before = fleet.facts_version
    fleet.set_facts(4, "x86", {"site": "s1"})
    assert fleet.facts_version == before
    fleet.set_facts(4, "tpu", {"site": "s9", "line": "a"})
    assert fleet.facts_version == before + 1
    assert (fleet.profile(4), fleet.labels(4)) == ("tpu", {"site": "s9", "line": "a"})
    assert fleet.selected(parse("line")).sum() == 1


def test_an_empty_fleet_answers(fleet: Fleet):
    empty = Fleet(listening_since=0, offline_after_s=1)
    assert len(empty.selected(parse("a"))) == 0
    assert empty.figures(5).total == 0


def test_the_figures_count_online_devices_by_release(fleet: Fleet):
    for row in range(100):
        fleet.observe(row, 200, model="digits", release="1" if row < 60 else "2", phase=Phase.IDLE)
    fleet.observe(0, 200, model="digits", release="2", phase=Phase.FETCHING)
    fleet.observe(200, 150, model="digits", release="1", phase=Phase.IDLE)
    figures = fleet.figures(210)
    assert (figures.total, figures.online) == (3000, 100)
    assert figures.on_release == {"digits": {"1": 59, "2": 41}}
    assert figures.by_profile == {"x86": 1500, "nano": 1500}
    assert (figures.by_phase["idle"], figures.by_phase["fetching"]) == (99, 1)


def test_no_device_is_silent_for_longer_than_this_process_listens(fleet: Fleet):
    fleet.observe(1, 50.0, model=None, release=None, phase=Phase.IDLE)
    rows = fleet.hashes[:2].argsort()[:0].astype(int)
    assert len(fleet.silent_longer(rows, 110, 5.0)) == 0
    all_rows = fleet.selected(parse("")).nonzero()[0]
    assert fleet.silent_longer(all_rows, 110, 9.0).all()
    assert not fleet.silent_longer(all_rows, 110, 10.0).any()
