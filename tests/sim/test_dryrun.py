import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import (
    ApprovalSpec,
    ExposureSpec,
    GateSpec,
    PaceSpec,
    RolloutSpec,
    WaveSpec,
    WindowSpec,
)
from edgefleet.sim.virtual.dry_run import FleetToTry, group_devices, predict
from edgefleet.sim.virtual.releases import manifest
from edgefleet.sim.virtual.run import START
from edgefleet.sim.virtual.scenario import MODEL, NEW, Group, Scenario

MANIFEST, _ = manifest(MODEL, NEW, Scenario(title=""), START)
BYTES = 2_000_000 + 20_000


def fleet(devices: int, offline: int = 0) -> FleetToTry:
    half = devices // 2
    return FleetToTry(
        groups=(
            Group(profile="jetson_nano", labels={"site": "lyon"}, devices=half),
            Group(profile="generic_x86", labels={"site": "turin"}, devices=devices - half),
        ),
        offline=offline,
    )


def plan(*percents: float, **knobs) -> RolloutSpec:
    waves = tuple(WaveSpec(percent=percent) for percent in percents or (1, 10, 100))
    return RolloutSpec(model="other", release="9", waves=waves, **knobs)


def test_a_dry_run_says_cuts_bytes_duration_and_exposure() -> None:
    found = predict(plan(), fleet(1000), MANIFEST, seed=7, now=START)
    assert [wave.cut for wave in found.waves] == [10, 100, 990]  # ten are held back
    assert found.bytes == 1000 * BYTES
    assert found.ends == "completed"
    assert found.duration_s is not None
    assert found.duration_s > found.waves[2].opens_s > found.waves[1].opens_s > 0
    assert 10 <= found.most_in_trial <= 500
    assert predict(plan(), fleet(1000), MANIFEST, seed=7, now=START) == found


def test_a_pace_makes_it_longer_and_a_window_makes_it_wait() -> None:
    wide = ExposureSpec(ceiling=1)
    quick = predict(plan(100, exposure=wide), fleet(400), MANIFEST, seed=7, now=START)
    slow = plan(100, exposure=wide, pace=PaceSpec(starts_per_minute=20))
    paced = predict(slow, fleet(400), MANIFEST, seed=7, now=START)
    late = plan(100, exposure=wide, windows=(WindowSpec(start="03:00", end="09:00"),))
    windowed = predict(late, fleet(400), MANIFEST, seed=7, now=START)
    assert quick.duration_s is not None
    assert paced.duration_s is not None
    assert windowed.duration_s is not None
    assert paced.duration_s >= 390 / 20 * 60 > quick.duration_s
    assert 3 * 3600 + quick.duration_s / 2 < windowed.duration_s < 5 * 3600


def test_a_large_fleet_is_simulated_smaller_and_told_in_full() -> None:
    found = predict(plan(50, 100), fleet(40_000), MANIFEST, seed=7, now=START)
    assert found.devices == 40_000
    assert found.simulated == 10_000
    assert [wave.cut for wave in found.waves] == [20_000, 39_600]


def test_what_cannot_be_planned_is_refused_as_by_the_hub() -> None:
    with pytest.raises(OperatorError, match="percent"):
        predict(plan(0), fleet(10), MANIFEST, seed=7, now=START)


def test_devices_that_are_alike_are_one_group() -> None:
    alike = [("jetson", {"site": "a", "zone": "1"}), ("jetson", {"zone": "1", "site": "a"})]
    assert [group.devices for group in group_devices([*alike, ("x86", {})])] == [2, 1]


@pytest.mark.parametrize("confirm_after_s", [5, 20, 59])
def test_short_trials_are_seen_between_the_points_of_the_curve(confirm_after_s: float) -> None:
    wanted = plan(gate=GateSpec(confirm_after_s=confirm_after_s))
    found = predict(wanted, fleet(400), MANIFEST, seed=7, now=START)
    assert 10 <= found.most_in_trial <= 400 / 2
    assert found.ends == "completed"


def test_no_more_are_in_trial_than_the_plan_allows() -> None:
    wanted = plan(100, exposure=ExposureSpec(first=7, growth=0))
    assert predict(wanted, fleet(100), MANIFEST, seed=7, now=START).most_in_trial == 7


def test_the_bake_and_its_holdback_follow_the_duration() -> None:
    asked = plan(bake_s=3600.0, holdback_percent=2.0)
    found = predict(asked, fleet(300), MANIFEST, seed=7, now=START)
    assert (found.bake_s, found.holdback, found.waves[-1].cut) == (3600.0, 6, 294)
    assert found.duration_s is not None
    assert found.duration_s < found.bake_s
    first = predict(asked, replace(fleet(300), is_first=True), MANIFEST, seed=7, now=START)
    assert (first.holdback, first.waves[-1].cut) == (0, 300)


@pytest.mark.parametrize(("people", "each_wave", "approvals"), [(1, False, 1), (2, True, 6)])
def test_approvals_are_part_of_the_duration(people: int, approvals: int, *, each_wave: bool):
    at_once = predict(plan(), fleet(300), MANIFEST, seed=7, now=START)
    asked = plan(approval=ApprovalSpec(people=people, each_wave=each_wave))
    found = predict(asked, fleet(300), MANIFEST, seed=7, now=START)
    assert (found.approvals, at_once.approvals) == (approvals, 0)
    assert at_once.duration_s is not None
    assert found.duration_s is not None
    assert found.duration_s >= at_once.duration_s + (approvals - 1) * found.approval_s
