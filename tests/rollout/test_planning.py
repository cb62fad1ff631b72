"""Planning: each invalid specification raises an error with its field and changes nothing."""

import math

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.testing import Behaviour, Fate
from support.fleets import CheckedFleet, new_device
from support.plans import GATE, MODEL, spec


@pytest.fixture
def fleet() -> CheckedFleet:
    fleet = CheckedFleet(60)
    fleet.publish("1")
    fleet.publish("2")
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


def refused(fleet: CheckedFleet, wanted: RolloutSpec) -> tuple[str, str | None]:
    before = fleet.engine.states()
    with pytest.raises(OperatorError) as caught:
        fleet.plan(wanted)
    assert caught.value.hint
    assert fleet.engine.states() == before
    return caught.value.code, caught.value.field


@pytest.mark.parametrize(
    ("percents", "code", "field"),
    [
        ((0.0,), "percent_out_of_range", "waves[0].percent"),
        ((1.0, 101.0), "percent_out_of_range", "waves[1].percent"),
        ((-1.0,), "percent_out_of_range", "waves[0].percent"),
        ((math.nan,), "percent_out_of_range", "waves[0].percent"),
        ((math.inf,), "percent_out_of_range", "waves[0].percent"),
        ((1.0, 10.0, 10.0), "percent_not_rising", "waves[2].percent"),
        ((10.0, 5.0), "percent_not_rising", "waves[1].percent"),
        (tuple(float(n) for n in range(1, 22)), "waves_invalid", "waves"),
    ],
)
def test_bad_waves(fleet: CheckedFleet, percents: tuple[float, ...], code: str, field: str):
    assert refused(fleet, spec("2", *percents)) == (code, field)


def test_no_waves_at_all(fleet: CheckedFleet):
    assert refused(fleet, replace(spec("2"), waves=())) == ("waves_invalid", "waves")


def test_one_wave_of_less_than_everyone_is_fine(fleet: CheckedFleet):
    wanted = replace(spec("2"), waves=(WaveSpec(percent=50),))
    assert fleet.view(fleet.plan(wanted)).status is Status.PLANNED


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_error_rate": -0.1}, "gate.max_error_rate"),
        ({"max_error_rate": 5}, "gate.max_error_rate"),
        ({"max_error_rate": math.nan}, "gate.max_error_rate"),
        ({"min_sample": 0}, "gate.min_sample"),
        ({"soak_s": -1}, "gate.soak_s"),
        ({"soak_s": math.inf}, "gate.soak_s"),
        ({"confirm_after_s": -1}, "gate.confirm_after_s"),
        ({"silence_s": 0}, "gate.silence_s"),
        ({"patience_s": -1}, "gate.patience_s"),
        ({"max_confidence_drop": 2}, "gate.max_confidence_drop"),
        ({"min_requests": 0}, "gate.min_requests"),
        ({"alpha": 1e-11}, "gate.alpha"),
        ({"alpha": 0}, "gate.alpha"),
    ],
)
def test_a_bad_gate(fleet: CheckedFleet, change: dict[str, float], field: str):
    gate = GateSpec(**change)
    assert refused(fleet, spec("2", gate=gate)) == ("gate_invalid", field)


@pytest.mark.parametrize(
    ("selector", "code"),
    [
        ("site in (", "selector_invalid"),
        ("town=lyon", "selector_key_unknown"),
        ("site=s0,!canary", "selector_key_unknown"),
        ("site=nowhere", "fleet_empty"),
    ],
)
def test_a_bad_selector(fleet: CheckedFleet, selector: str, code: str):
    assert refused(fleet, spec("2", selector=selector)) == (code, "selector")


def test_an_unknown_release(fleet: CheckedFleet):
    assert refused(fleet, spec("9")) == ("not_found", "release")


def test_a_release_without_a_variant_for_a_profile_of_the_fleet(fleet: CheckedFleet):
    fleet.enrol(new_device("jetson", profile="jetson_nano", site="s9"))
    assert refused(fleet, spec("2")) == ("variant_missing", "release")
    assert fleet.plan(spec("2", selector="site!=s9"))


def test_the_missing_profile_is_named_with_its_devices(fleet: CheckedFleet):
    fleet.enrol(new_device("jetson", profile="jetson_nano", site="s9"))
    with pytest.raises(OperatorError, match=r"jetson_nano \(1 device\)"):
        fleet.plan(spec("2"))


def test_a_second_rollout_on_common_devices(fleet: CheckedFleet):
    fleet.start(spec("2", selector="site=s1"))
    assert refused(fleet, spec("1", selector="site in (s1,s2)")) == ("rollout_overlap", "selector")


def test_rollouts_on_disjoint_devices_run_side_by_side(fleet: CheckedFleet):
    fleet.publish("3")
    one = fleet.start(spec("2", selector="site=s1"))
    other = fleet.start(spec("3", selector="site=s2"))
    assert fleet.finish(one).status is Status.COMPLETED
    assert fleet.finish(other).status is Status.COMPLETED
    assert fleet.on_release() == {"2": 20, "3": 20, "1": 20}


def test_a_halted_rollout_lets_go_of_its_devices(fleet: CheckedFleet):
    halted = fleet.start(spec("2", 50, 100))
    fleet.settle(halted, 2)
    fleet.command(halted, Verb.HALT)
    fleet.publish("3")
    assert fleet.finish(fleet.start(spec("3"))).status is Status.COMPLETED
    assert fleet.on_release()["3"] == 60
    with pytest.raises(OperatorError) as caught:
        fleet.command(halted, Verb.RESUME)
    assert caught.value.code == "verb_not_now"


def test_a_release_that_all_devices_have_is_not_planned_again(fleet: CheckedFleet):
    fleet.finish(fleet.start(spec("2", 100)))
    assert refused(fleet, spec("2", 1, 100)) == ("release_current", "release")
    fleet.enrol(new_device("late"))
    assert fleet.plan(spec("2", 100))  # the engine does not have the release


def test_a_reverted_release_is_not_planned_again(fleet: CheckedFleet):
    fleet.publish("3", Behaviour(fails=1))
    fleet.finish(fleet.start(spec("3", 20, 100)))
    assert refused(fleet, spec("3")) == ("release_failed_before", "release")


def test_a_release_that_was_refused_is_not_planned_again(fleet: CheckedFleet):
    fleet.publish("3", Behaviour(refuses=1))
    fleet.finish(fleet.start(spec("3", 20, 100)))
    assert refused(fleet, spec("3")) == ("release_failed_before", "release")


def test_the_release_may_be_planned_for_others(fleet: CheckedFleet):
    fleet.publish("3", fate=lambda device: (
        Fate.FAILS if device.row % 3 == 1 else Fate.HEALTHY
    ))  # fmt: skip
    assert fleet.finish(fleet.start(spec("3", selector="site=s1"))).status is Status.REVERTED
    assert fleet.finish(fleet.start(spec("3", selector="site=s2"))).status is Status.COMPLETED


def test_previous_is_what_the_fleet_should_run(fleet: CheckedFleet):
    assert fleet.view(fleet.plan(spec("2"))).previous == "1"


def test_previous_is_none_on_a_fleet_that_runs_nothing():
    fleet = CheckedFleet(5)
    fleet.publish("1")
    assert fleet.view(fleet.plan(spec("1"))).previous is None


def test_planning_exposes_no_device(fleet: CheckedFleet):
    fleet.plan(spec("2"))
    assert all(
        fleet.engine.admission.offers(device.row, fleet.now) == () for device in fleet.by_row
    )


def test_a_release_of_several_profiles_goes_to_each_of_them():
    fleet = CheckedFleet(10)
    fleet.enrol(new_device("jetson", profile="jetson_nano"))
    fleet.publish("1", profiles=("generic_x86", "jetson_nano"))
    fleet.finish(fleet.start(spec("1", 100, gate=GATE)))
    assert fleet.on_release()["1"] == 11


def test_the_newest_rollout_decides_though_the_clock_was_set_back(fleet: CheckedFleet):
    fleet.jump(-86_400)
    fleet.restart()
    newest = fleet.start(spec("2", 100))
    fleet.finish(newest)
    assert fleet.on_release()["2"] == len(fleet.by_row)
    assert [fleet.engine.desired(device.row, MODEL) for device in fleet.by_row] == ["2"] * 60
    assert fleet.engine.states()[0].id == newest
    fleet.restart(reverse=True)
    assert [fleet.engine.desired(device.row, MODEL) for device in fleet.by_row] == ["2"] * 60
