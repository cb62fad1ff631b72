"""Releases with the right answers that cost too much, on three real agents at a real hub."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.protocol.operator import ClaimRequest, TrustKey
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
from support.agent_process import AgentProcess
from support.asking import Asker, digits
from support.bad_requests import PLANTED
from support.hub_process import HubProcess, running_hub
from support.tiny_releases import TinyRelease, publish, tiny_release

pytestmark = pytest.mark.slow

SEED = 1
CHAIN = 300  # layers of the good release, about a millisecond of CPU time
SOON = "from edgefleet.agent import limits\nlimits.WARM_UP_S = 1.0"
"""The requests of the first second alone are left out."""
GATE = GateSpec(
    soak_s=0.2, confirm_after_s=10.0, max_latency_p95_ms=60_000, max_latency_increase=10
)


def roll_out(hub: HubProcess, release: str) -> RolloutView:
    """Start a rollout to all devices. Returns its end."""
    spec = RolloutSpec(
        model="digits", release=release, waves=(WaveSpec(percent=100),), gate=GATE, bake_s=0
    )
    client = hub.client()
    rollout, last = client.plan(spec).id, None
    client.command(rollout, Verb.START, Command())
    for seen in watch(client, rollout, clock=SystemClock(), timeout_s=120, every_s=0.2):
        last = seen.view if isinstance(seen, Observed) else last
    assert last is not None
    return last


@dataclass(frozen=True)
class Fleet:
    """A hub, its agents, and the key of their publisher."""

    hub: HubProcess
    agents: list[AgentProcess]
    key: PublisherKey


@contextmanager
def fleet(folder: Path, good: TinyRelease) -> Generator[Fleet]:
    """Three agents that serve the good release."""
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(folder / "hub", interval_s=0.5, offline_after_s=60))
        key = PublisherKey.generate()
        hub.client().trust(TrustKey(name="publisher", public_key=key.public.text))
        agents: list[AgentProcess] = []
        for name in ("one", "two", "three"):
            (claim,) = hub.client().claim(ClaimRequest(count=1)).claims
            (folder / name).mkdir()
            agent = AgentProcess(folder / name, hub, key, claim=claim, name=name, fault=SOON)
            stack.callback(agent.end)
            agent.start(environ=PLANTED)
            agents.append(agent)
        publish(hub.client(), key, good)
        for agent in agents:
            agent.wait(lambda state: state.facts_known)
        end = roll_out(hub, "1")
        assert end.status is Status.COMPLETED, end.why
        yield Fleet(hub, agents, key)


def twice_as_long(folder: Path) -> TinyRelease:
    return tiny_release(folder, "2", chain=2 * CHAIN, seed=SEED)


def leaking(folder: Path) -> TinyRelease:
    return tiny_release(folder, "2", chain=CHAIN, seed=SEED, description="leaks")


@pytest.mark.parametrize(
    ("bad", "reason", "text"),
    [
        (twice_as_long, "cpu_increase", "CPU time of a request rose"),
        (leaking, "memory_growth", "MiB an hour"),
    ],
)
@pytest.mark.long
def test_a_release_with_the_same_answers_that_costs_more_is_rolled_back(
    tmp_path: Path, bad: Callable[[Path], TinyRelease], reason: str, text: str
) -> None:
    good = tiny_release(tmp_path / "good", "1", chain=CHAIN, seed=SEED)
    worse = bad(tmp_path / "bad")
    models = {"1": good.model, "2": worse.model}
    with fleet(tmp_path, good) as made, ExitStack() as stack:
        askers = [
            stack.enter_context(Asker(agent.serve, digits(models), pause_s=0.04))
            for agent in made.agents
        ]
        for asker in askers:
            asker.wait_for_answers(250)
        publish(made.hub.client(), made.key, worse)
        end = roll_out(made.hub, "2")
    assert end.status is Status.REVERTED, end.evidence
    assert set(end.evidence.reasons) == {reason}
    why = " ".join(wait.text for wait in end.why.waits)
    assert text in why
    assert [asker.faults for asker in askers] == [[], [], []]
    assert all("2" in asker.answers for asker in askers)
