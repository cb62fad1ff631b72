"""Planning: each invalid specification raises an error with its field and changes nothing."""

import math

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, Status, Verb, WaveSpec
from support.toy_rollout import GATE, MODEL, Behaviour, ToyShell, manifest, spec


@pytest.fixture
def shell() -> ToyShell:
    shell = ToyShell(60)
    shell.publish("1")
    shell.publish("2")
    shell.run(shell.start(spec("1", 100)))
    return shell


def refused(shell: ToyShell, wanted: RolloutSpec) -> tuple[str, str | None]:
    before = shell.engine.states()
    with pytest.raises(OperatorError) as caught:
        shell.plan(wanted)
    assert caught.value.hint
    assert shell.engine.states() == before
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
def test_bad_waves(shell: ToyShell, percents: tuple[float, ...], code: str, field: str):
    assert refused(shell, spec("2", *percents)) == (code, field)


def test_no_waves_at_all(shell: ToyShell):
    assert refused(shell, replace(spec("2"), waves=())) == ("waves_invalid", "waves")


def test_one_wave_of_less_than_everyone_is_fine(shell: ToyShell):
    wanted = replace(spec("2"), waves=(WaveSpec(percent=50),))
    assert shell.view(shell.plan(wanted)).status is Status.PLANNED


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
    ],
)
def test_a_bad_gate(shell: ToyShell, change: dict[str, float], field: str):
    gate = GateSpec(**change)
    assert refused(shell, spec("2", gate=gate)) == ("gate_invalid", field)


@pytest.mark.parametrize(
    ("selector", "code"),
    [
        ("site in (", "selector_invalid"),
        ("town=lyon", "selector_key_unknown"),
        ("site=s0,!canary", "selector_key_unknown"),
        ("site=nowhere", "fleet_empty"),
    ],
)
def test_a_bad_selector(shell: ToyShell, selector: str, code: str):
    assert refused(shell, spec("2", selector=selector)) == (code, "selector")


def test_an_unknown_release(shell: ToyShell):
    assert refused(shell, spec("9")) == ("not_found", "release")


def test_a_release_without_a_variant_for_a_profile_of_the_fleet(shell: ToyShell):
    shell.enrol("jetson", profile="jetson_nano", site="s9")
    assert refused(shell, spec("2")) == ("variant_missing", "release")
    assert shell.plan(spec("2", selector="site!=s9"))


def test_the_missing_profile_is_named_with_its_devices(shell: ToyShell):
    shell.enrol("jetson", profile="jetson_nano", site="s9")
    with pytest.raises(OperatorError, match=r"jetson_nano \(1 devices\)"):
        shell.plan(spec("2"))


def test_a_second_rollout_on_common_devices(shell: ToyShell):
    shell.start(spec("2", selector="site=s1"))
    assert refused(shell, spec("1", selector="site in (s1,s2)")) == ("rollout_overlap", "selector")


def test_rollouts_on_disjoint_devices_run_side_by_side(shell: ToyShell):
    shell.publish("3")
    one = shell.start(spec("2", selector="site=s1"))
    other = shell.start(spec("3", selector="site=s2"))
    assert shell.run(one).status is Status.COMPLETED
    assert shell.run(other).status is Status.COMPLETED
    assert (shell.on_release("2"), shell.on_release("3"), shell.on_release("1")) == (20, 20, 20)


def test_a_halted_rollout_lets_go_of_its_devices(shell: ToyShell):
    halted = shell.start(spec("2", 50, 100))
    shell.settle(halted, 2)
    shell.command(halted, Verb.HALT)
    shell.publish("3")
    assert shell.run(shell.start(spec("3"))).status is Status.COMPLETED
    assert shell.on_release("3") == 60
    with pytest.raises(OperatorError) as caught:
        shell.command(halted, Verb.RESUME)
    assert caught.value.code == "verb_not_now"


def test_a_release_that_all_devices_have_is_not_planned_again(shell: ToyShell):
    shell.run(shell.start(spec("2", 100)))
    assert refused(shell, spec("2", 1, 100)) == ("release_current", "release")
    shell.enrol("late")
    assert shell.plan(spec("2", 100))  # the engine does not have the release


def test_a_reverted_release_is_not_planned_again(shell: ToyShell):
    shell.publish("3", Behaviour.FAILS_TRIAL)
    shell.run(shell.start(spec("3", 20, 100)))
    assert refused(shell, spec("3")) == ("release_failed_before", "release")


def test_a_release_that_was_refused_is_not_planned_again(shell: ToyShell):
    shell.publish("3", Behaviour.REFUSES)
    shell.run(shell.start(spec("3", 20, 100)))
    assert refused(shell, spec("3")) == ("release_failed_before", "release")


def test_the_release_may_be_planned_for_others(shell: ToyShell):
    shell.publish("3", lambda device: (
        Behaviour.FAILS_TRIAL if device.row % 3 == 1 else Behaviour.GOOD
    ))  # fmt: skip
    assert shell.run(shell.start(spec("3", selector="site=s1"))).status is Status.REVERTED
    assert shell.run(shell.start(spec("3", selector="site=s2"))).status is Status.COMPLETED


def test_previous_is_what_the_fleet_should_run(shell: ToyShell):
    assert shell.view(shell.plan(spec("2"))).previous == "1"


def test_previous_is_none_on_a_fleet_that_runs_nothing():
    shell = ToyShell(5)
    shell.publish("1")
    assert shell.view(shell.plan(spec("1"))).previous is None


def test_planning_exposes_no_device(shell: ToyShell):
    shell.plan(spec("2"))
    assert all(
        shell.engine.admission.offers(device.row, shell.now) == () for device in shell.devices
    )


def test_a_release_of_several_profiles_goes_to_each_of_them():
    shell = ToyShell(10)
    shell.enrol("jetson", profile="jetson_nano")
    shell.behaviour["1"] = lambda _device: Behaviour.GOOD
    shell.engine.add_release(manifest("1", ("generic_x86", "jetson_nano")), "1" * 64)
    shell.run(shell.start(spec("1", 100, gate=GATE)))
    assert shell.on_release("1") == 11


def test_the_newest_rollout_decides_though_the_clock_was_set_back(shell: ToyShell):
    shell.now -= 86_400
    shell.restart()
    newest = shell.start(spec("2", 100))
    shell.run(newest)
    assert shell.on_release("2") == len(shell.devices)
    assert [shell.engine.desired(device.row, MODEL) for device in shell.devices] == ["2"] * 60
    assert shell.engine.states()[0].id == newest
    shell.restart(reverse=True)
    assert [shell.engine.desired(device.row, MODEL) for device in shell.devices] == ["2"] * 60
