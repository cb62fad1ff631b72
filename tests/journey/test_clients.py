"""Clients that do not know of a new interface, with real parts: a hub, three agents, their clients."""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from edgefleet.agent.table import Stage
from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import (
    Command,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess, only
from support.asking import Asker, digits
from support.hub_process import HubProcess, running_hub
from support.tiny_models import pixels
from support.tiny_releases import publish, tiny_release

DEVICES = 3
GATE = GateSpec(min_sample=1, soak_s=0.2, confirm_after_s=3.0, silence_s=60.0)
CAUSE = "clients send `pixels`, release 2 wants `image`"


class Fleet:
    """Three devices on release 1. Release 3 has the same weights as release 1.

    Release 2 has another name for its input, as has its golden set.
    """

    def __init__(self, folder: Path, hub: HubProcess, stack: ExitStack) -> None:
        self.hub = hub
        self.client = hub.client()
        key = PublisherKey.generate()
        models = {}
        for release, name in (("1", "pixels"), ("2", "image"), ("3", "pixels")):
            built = tiny_release(
                folder / "releases",
                release,
                input_name=name,
                seed=2 if release == "2" else 1,
                description=release,
            )
            # The publisher is wrong: the clients do not change.
            manifest = structs.replace(built.manifest, changes_interface=release == "2")
            built = replace(built, manifest=manifest)
            publish(self.client, key, built)
            models[release] = built.model
        self.models = models
        self.question = digits(models)
        claims = self.client.claim(ClaimRequest(count=DEVICES)).claims
        self.agents: list[AgentProcess] = []
        for number, claim in enumerate(claims):
            home = folder / f"cam-{number}"
            home.mkdir()
            agent = AgentProcess(home, hub, key, claim=claim, name=home.name)
            stack.callback(agent.end)
            agent.start()
            self.agents.append(agent)
        for agent in self.agents:
            agent.wait(lambda state: state.facts_known)
        assert self.roll_out("1", 100).status is Status.COMPLETED

    def roll_out(self, release: str, *percents: float) -> RolloutView:
        waves = tuple(WaveSpec(percent=percent) for percent in percents)
        spec = RolloutSpec(
            model="digits", release=release, waves=waves, gate=GATE,
            changes_interface=release == "2",
        )  # fmt: skip
        rollout = self.client.plan(spec).id
        self.client.command(rollout, Verb.START, Command())
        last = None
        for seen in watch(
            self.hub.client(), rollout, clock=SystemClock(), timeout_s=90.0, every_s=0.1
        ):
            if isinstance(seen, Observed):
                last = seen.view
        assert last is not None
        return last


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(tmp_path / "hub", interval_s=0.3, offline_after_s=60))
        yield Fleet(tmp_path, hub, stack)


@pytest.mark.slow
def test_a_release_that_renames_its_input_is_rolled_back_in_the_first_wave(fleet: Fleet) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Asker(agent.serve, fleet.question, pause_s=0.01))
            for agent in fleet.agents
        ]
        for client in clients:
            client.wait_for_answers(200)
        before = [len(client.faults) for client in clients]
        end = fleet.roll_out("2", 67, 100)  # two devices first: one failure never decides alone
        for agent in fleet.agents:
            agent.wait(lambda state: only(state).stage is Stage.IDLE and not state.spool)
        during = [len(client.faults) for client in clients]
        for client in clients:
            client.wait_for_answers(50)
        after = [len(client.faults) for client in clients]
    assert (end.status, end.reason) == (Status.REVERTED, "error_rate")
    assert [wave.opened_at is not None for wave in end.waves] == [True, False]
    assert end.evidence.reasons == {"requests_refused": end.evidence.failed}
    said = end.waves[0].judgement
    assert said is not None
    assert "requests were refused before the model ran" in said.text
    assert CAUSE in said.text
    assert any(CAUSE in wait.text for wait in end.why.waits)
    assert before == [0] * DEVICES
    assert after == during, "the release before answers again"
    tried = [count > 0 for count in during]
    assert sum(tried) == end.exposed
    for client in clients:
        assert all("400 " in fault and "unknown" in fault for fault in client.faults)
        assert set(client.answers) == {"1"}
    # No device had a second trial: only the attempts at 1, and one at 2 where it was exposed.
    attempts = [agent.wait(lambda _: True).attempts for agent in fleet.agents]
    assert attempts == [1 + was for was in tried]


@pytest.mark.slow
@pytest.mark.long
def test_a_client_that_always_sends_bad_requests_says_nothing_about_a_release(fleet: Fleet) -> None:
    good, expected = pixels(1), fleet.models["1"].probabilities(pixels(1))
    bad = [good[:, :63], np.full_like(good, np.nan)]
    question = replace(
        fleet.question,
        cases=tuple({"pixels": one} for one in [*[good] * 8, *bad]),
        expected={release: [*[expected] * 8, None, None] for release in ("1", "3")},
    )
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Asker(agent.serve, question, pause_s=0.01))
            for agent in fleet.agents
        ]
        for client in clients:
            client.wait_for_answers(200)
        end = fleet.roll_out("3", 100)
        for client in clients:
            client.wait_for_answers(50)
    assert (end.status, end.exposed, end.evidence.failed) == (Status.COMPLETED, DEVICES, 0), (
        end.text
    )
    for client in clients:
        assert client.answers[-1] == "3"
        assert len(client.faults) == pytest.approx(len(client.answers) / 4, rel=0.1)
        refused = [fault for fault in client.faults if fault.startswith("400 ")]
        assert 0 < len(refused) < len(client.faults)
