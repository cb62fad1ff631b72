"""A simulated device with two models: one is added, tried and given up beside the other."""

from collections.abc import Sequence

import pytest

from edgefleet.agent.state import InstalledRelease
from edgefleet.agent.table import IN_TRIAL, Stage
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.serving import model_status
from edgefleet.sim.load import device as simulated
from edgefleet.sim.load.draws import Draws
from edgefleet.sim.load.serving_process import Served, VirtualServing
from support.sim_releases import behaviour, manifest
from support.virtual_hub import VirtualFleet

BOTH = {"digits": "1", "parity": "p1"}


def fleet_with_digits(count: int = 1) -> VirtualFleet:
    """Devices with release 1 of digits, and the first release of a second model at the hub."""
    fleet = VirtualFleet()
    for number in range(count):
        fleet.add(f"d{number}")
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(60)
    assert set(fleet.releases().values()) == {"1"}
    fleet.hub.publish("p1", model="parity")
    return fleet


def test_a_rollout_of_another_model_adds_it_beside_what_runs() -> None:
    fleet = fleet_with_digits()
    fleet.hub.start("p1", model="parity")
    fleet.run(60)
    (device,) = fleet.simulated.devices.values()
    assert device.releases == BOTH
    assert device.ran == {"digits": ("1",), "parity": ("p1",)}
    assert device.disk.read("current") == b"digits a\nparity a\n"
    report = fleet.simulated.report("summary")
    assert report.on_release == {"digits": {"1": 1}, "parity": {"p1": 1}}
    assert report.ran_now == {"digits": {"1": {"1": 1}}, "parity": {"p1": {"p1": 1}}}


def overlapping() -> VirtualFleet:
    """Rollouts of a bad release of digits, and of the second model, on the same devices."""
    fleet = fleet_with_digits(20)
    fleet.hub.publish("2")
    fleet.laboratory.behaviours["2"] = behaviour(0.6)
    bad = fleet.hub.start("2")
    good = fleet.hub.start("p1", model="parity")
    waited = False
    for _ in range(1200):
        fleet.run(0.1)
        for device in fleet.simulated.devices.values():
            assert "digits" in device.releases
            stages = [one.stage for one in device.state.models.values()]
            assert sum(stage in IN_TRIAL for stage in stages) <= 1
            waited |= Stage.STAGED in stages and Stage.WATCHING in stages
    assert waited, "no device had a release staged during the trial of another model"
    assert fleet.hub.view(bad).status is Status.REVERTED
    assert fleet.hub.view(good).status is Status.COMPLETED
    return fleet


def test_a_bad_release_is_rolled_back_while_another_model_arrives() -> None:
    fleet = overlapping()
    assert [device.releases for device in fleet.simulated.devices.values()] == [BOTH] * 20
    assert fleet.simulated.report("summary").ran_now["digits"]["2"].keys() == {"1"}


class OnlyTheNewest(VirtualServing):
    """It serves the release on trial, or else one model: the planted bug."""

    def apply(self, now: float, generation: int, wanted: Sequence[Served]) -> None:
        super().apply(now, generation, [one for one in wanted if one.on_trial] or wanted[-1:])


def test_a_process_that_drops_the_other_model_is_found_by_the_same_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulated, "VirtualServing", OnlyTheNewest)
    with pytest.raises(AssertionError):
        overlapping()


@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0])
def test_a_power_cut_while_two_models_arrive_loses_neither(after_s: float) -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    for release, model in (("1", "digits"), ("p1", "parity")):
        fleet.hub.publish(release, model=model)
        fleet.hub.start(release, model=model)
    fleet.run(after_s)
    device.power_off()
    fleet.run(5)
    device.boot()
    fleet.run(90)
    assert device.releases == BOTH
    assert {f"{release} confirmed" for release in BOTH.values()} <= fleet.hub.counts().keys()


def served(release: str, model: str, *, on_trial: bool = False) -> Served:
    made = manifest(release, model)
    return Served(InstalledRelease.of(made, release, made.variants[0]), behaviour(), on_trial)


def test_a_switch_of_one_model_leaves_the_counters_of_the_other() -> None:
    serving = VirtualServing(10.0, Draws(1, "use"))
    serving.apply(0.0, 1, [served("1", "digits"), served("p1", "parity")])
    serving.apply(10.0, 2, [served("2", "digits", on_trial=True), served("p1", "parity")])
    status = serving.status(20.0)
    digits, parity = (model_status(status, model) for model in ("digits", "parity"))
    assert digits is not None
    assert parity is not None
    assert (digits.release, digits.on_trial, parity.on_trial) == ("2", True, False)
    assert digits.stats.requests in (99, 100, 101)
    assert parity.stats.requests in (199, 200, 201)


def test_a_missing_file_of_one_model_is_reported_with_its_name() -> None:
    fleet = fleet_with_digits()
    (device,) = fleet.simulated.devices.values()
    fleet.hub.start("p1", model="parity")
    while device.state.models.get("parity") is None or (
        device.state.models["parity"].stage is not Stage.STAGED
        and device.state.models["parity"].stage is not Stage.ANNOUNCING
    ):
        fleet.run(0.1)
    device.disk.remove("models/parity/a/model.onnx")
    fleet.run(20)
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.release, last.kind, last.reason) == ("p1", "trial_failed", "load_failed")
    assert device.releases == {"digits": "1"}
