"""Releases that fail on one class of devices only, in the simulator."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.protocol.rollout import Rollback, TakenBack
from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual.checkers.class_back import ClassBack
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.scenario import Group, Population, Scenario, Truth
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.plans import spec

START = 1_767_571_200.0


def spared(scenario: Scenario, devices: int = 300) -> tuple[DeviceFaults, np.ndarray]:
    facts = DeviceFaults(scenario, devices, 5, START)
    return facts, facts.luck >= scenario.release.fails


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_shares_of_a_release_are_of_the_devices_that_it_names(share: float) -> None:
    truth = Truth(fails=share, only_on="profile=jetson_nano")
    facts, are_spared = spared(Scenario(title="", release=truth))
    mine = np.array([facts.device(row).profile == "jetson_nano" for row in range(300)])
    assert are_spared[~mine].all()
    assert np.mean(~are_spared[mine]) == pytest.approx(share, abs=0.15)


def test_a_label_names_devices_of_sites_and_of_groups() -> None:
    truth = Truth(fails=1.0, only_on="site=site-0002")
    facts, are_spared = spared(Scenario(title="", release=truth, fleet=Population(sites=5)))
    for row in range(20):
        assert are_spared[row] == (facts.labels(row)["site"] != "site-0002")
    groups = (
        Group(profile="generic_x86", labels={"gpu": "g1"}, devices=3),
        Group(profile="generic_x86", devices=2),
    )
    truth = Truth(fails=1.0, only_on="gpu=g1")
    _, are_spared = spared(Scenario(title="", release=truth, fleet=Population(groups=groups)))
    assert are_spared[:10].tolist() == [False, False, False, True, True] * 2


@pytest.mark.parametrize("rollback", [Rollback.PART, Rollback.ALL])
def test_the_plan_says_whether_the_class_goes_back_alone(rollback: Rollback) -> None:
    wanted = scenarios.load("class_fails")
    plan = replace(wanted.rollout, gate=replace(wanted.rollout.gate, rollback=rollback))
    wanted = replace(wanted, rollout=plan, fleet=replace(wanted.fleet, panel=10))
    result = Run(wanted, name="class_fails", devices=1000, seed=11).play()
    assert result.violated == ()
    assert result.verdict == ("completed" if rollback is Rollback.PART else "reverted")
    assert result.exposed > 900 if rollback is Rollback.PART else result.exposed < 300


@dataclass
class Heard:
    texts: list[str] = field(default_factory=list)

    def __call__(self, _name: str, text: str) -> None:
        self.texts.append(text)


@dataclass
class Seen:
    """The part of a run that the checker reads."""

    hub: MemoryHub

    @property
    def engine(self):
        return self.hub.engine

    def name(self, row: int) -> str:
        return f"d{row}"


def test_the_checker_finds_a_start_and_an_offer_of_a_class_that_gave_the_release_back() -> None:
    hub = memory_hub(9, "1")
    rollout = hub.start(spec("1", 100))
    heard = Heard()
    checker = ClassBack(Seen(hub), heard)
    state = hub.engine.rollout(rollout).state
    part = TakenBack(key="site", value="s1")
    start = Outcome(id="1", rollout=rollout, release="1", kind=OutcomeKind.TRIAL_STARTED, at=START)
    offer = Offer(
        rollout=rollout, action="install", model="digits", release="1", manifest_sha256="0" * 64,
        confirm_after_s=1.0,
    )  # fmt: skip
    rows = np.array([0, 1])
    checker.stored(rows, start, START)
    checker.changed(state, replace(state, taken_back=(part,)), START)
    checker.stored(np.array([0, 2]), start, START)
    assert heard.texts == []
    checker.stored(rows, start, START)
    checker.offered(rows, offer, START)
    assert [text.split()[1] for text in heard.texts] == ["starts", "is"]
