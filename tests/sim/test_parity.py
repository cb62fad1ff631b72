"""Parity: one plan on the same devices, in the simulator and on a real hub over HTTP."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet.agent.state import InstalledRelease, Pace
from edgefleet.base.clock import SystemClock
from edgefleet.base.ids import mix64
from edgefleet.client.hub import HubClient
from edgefleet.protocol.device import Facts
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import (
    Command,
    ExposureSpec,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Verb,
    WaveSpec,
)
from edgefleet.security.signing import PublisherKey
from edgefleet.sim.load.device import DeviceFacts, Surroundings
from edgefleet.sim.load.disk import Shelf
from edgefleet.sim.load.event_loop import EventLoop
from edgefleet.sim.load.fleet import SimulatedFleet
from edgefleet.sim.load.http_hub import HttpHub
from edgefleet.sim.load.realtime import RealTime
from edgefleet.sim.load.serving_process import ModelBehaviour
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.scenario import ROLLOUT, Group, Population, Scenario, Truth
from support.hub_process import running_hub
from support.sim_releases import behaviour
from support.tiny_releases import publish, tiny_release
from support.waiting import until

DEVICES, SEED, INTERVAL_S = 40, 7, 1.0
NAMES = [f"d{row:07}" for row in range(DEVICES)]
THIRD = set(NAMES[::3])
GATE = GateSpec(min_sample=3, soak_s=1, confirm_after_s=1, silence_s=30, patience_s=6)
PLAN = RolloutSpec(
    model="digits",
    release="2",
    waves=(WaveSpec(percent=10), WaveSpec(percent=50), WaveSpec(percent=100)),
    gate=GATE,
    exposure=ExposureSpec(first=100),
)
# Runs in the hub's process before it starts: rollouts get the salt of the simulator.
GIVEN_SALT = f"""
from edgefleet.base import entropy
real = entropy.SystemEntropy.token
salt = ({mix64(SEED)}).to_bytes(8, "big")
entropy.SystemEntropy.token = lambda self, size: salt if size == 8 else real(self, size)
"""


@dataclass(frozen=True)
class Ended:
    """The compared values."""

    status: str
    reason: str
    waves: list[tuple[int, str | None, str | None]]  # cut, verdict, reason
    releases: dict[str, str | None]


def ended(view: RolloutView, releases: dict[str, str | None]) -> Ended:
    waves = [
        (
            wave.cut,
            wave.judgement and wave.judgement.verdict,
            wave.judgement and wave.judgement.reason,
        )
        for wave in view.waves
        if wave.cut is not None
    ]
    return Ended(view.status, view.reason, waves, releases)


def simulated(*, fails: float, away: set[str]) -> Ended:
    scenario = Scenario(
        title="parity",
        fleet=Population(
            interval_s=INTERVAL_S,
            groups=(Group(profile="generic_x86", devices=DEVICES),),
            profiles=("generic_x86",),
            requests_s=100.0,
            panel=0,
        ),
        release=Truth(fails=fails, size_bytes=40_000),
        rollout=PLAN,
        tick_s=1.0,
        heal_s=300.0,
    )
    run = Run(scenario, name="parity", devices=DEVICES, seed=SEED)
    for name in away:
        run.facts.dead[NAMES.index(name)] = True
    result = run.play_until_over()
    assert result.violated == ()
    view = run.engine.view(ROLLOUT, run.now)
    for name in away:
        run.facts.dead[NAMES.index(name)] = False
    run.settle(60.0)
    releases = {name: (None, "1", "2")[run.serves()[row]] for row, name in enumerate(NAMES)}
    return ended(view, releases)


class Laboratory:
    """Every release works; those in ``bad`` have a low confidence."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad

    def study(
        self,
        installed: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour], None],
    ) -> None:
        done(behaviour(0.6 if installed.release in self.bad else 0.95))


@contextmanager
def real_fleet(
    url: str, client: HubClient, key: PublisherKey, bad: set[str]
) -> Iterator[tuple[SimulatedFleet, RealTime]]:
    clock = SystemClock()
    world = EventLoop(clock.now())
    pacer = RealTime(world, clock)
    hub_api = HttpHub(url, pacer.post)
    around = Surroundings(
        world=world,
        hub=hub_api,
        shelf=Shelf(),
        laboratory=Laboratory(bad),
        trusted={key.public.keyid: key.public},
        seed=SEED,
    )
    fleet = SimulatedFleet(around)
    claims = client.claim(ClaimRequest(count=DEVICES)).claims
    for name, claim in zip(NAMES, claims, strict=True):
        facts = Facts(profile="generic_x86", agent_version="1", runtimes=("onnx",), memory_mib=1024)
        fleet.enrol(
            DeviceFacts(
                name=name,
                facts=facts,
                requests_s=100.0,
                pace=Pace(probe_idle_s=0.5, probe_trial_s=0.25),
            ),
            claim,
        )
    thread = threading.Thread(target=pacer.run)
    thread.start()
    try:
        yield fleet, pacer
    finally:
        pacer.stop()
        thread.join()
        hub_api.close()


def really(folder: Path, *, fails: float, away: set[str]) -> Ended:
    key = PublisherKey.generate()
    with (
        running_hub(folder / "hub", fault=GIVEN_SALT, interval_s=INTERVAL_S, tick_s=0.2) as hub,
        closing(hub.client()) as client,
    ):
        for release in ("1", "2"):
            publish(client, key, tiny_release(folder / release, release))
        with real_fleet(hub.url, client, key, {"2"} if fails else set()) as (fleet, pacer):
            until(lambda: client.fleet().online == DEVICES, "Not all devices are online.")
            first = RolloutSpec(
                model="digits",
                release="1",
                waves=(WaveSpec(percent=100),),
                gate=GATE,
                exposure=ExposureSpec(first=100),
            )
            play(client, first)
            until(
                lambda: client.fleet().on_release.get("digits", {}).get("1") == DEVICES,
                "Not all devices run release 1.",
            )
            for name in away:
                pacer.post(fleet.devices[name].power_off)
            until(
                lambda: client.fleet().online == DEVICES - len(away),
                "The devices that went away still count as online.",
            )
            view = play(client, PLAN)
            for name in away:
                pacer.post(fleet.devices[name].boot)
            last = "1" if fails else "2"
            until(
                lambda: client.fleet().on_release.get("digits", {}).get(last) == DEVICES,
                f"Not all devices run release {last} in the end.",
            )
            releases = {name: fleet.devices[name].releases.get("digits") for name in NAMES}
    return ended(view, releases)


def play(client: HubClient, plan: RolloutSpec) -> RolloutView:
    rollout = client.plan(plan).id
    client.command(rollout, Verb.START, Command())
    until(lambda: client.rollout(rollout).ended_at is not None, "The rollout did not end.")
    return client.rollout(rollout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "away"),
    [(0.0, set()), (1.0, set()), pytest.param(0.0, THIRD, marks=pytest.mark.long)],
    ids=["good", "bad", "a third offline"],
)
def test_simulator_and_real_hub_come_to_the_same(fails: float, away: set[str], tmp_path) -> None:
    expected = simulated(fails=fails, away=away)
    assert expected.status == ("reverted" if fails else "completed")
    assert really(tmp_path, fails=fails, away=away) == expected
