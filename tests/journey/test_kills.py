"""The main job with real parts: a real hub, real agents, real models, and kill -9 at each stage."""

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgefleet.agent.state import AgentState
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
from support.tiny_models import TinyModel, classifier
from support.tiny_releases import publish, tiny_release

PROFILES = ("generic_x86", "jetson_nano", "raspberry_pi")
GATE = GateSpec(min_sample=1, soak_s=0.2, confirm_after_s=2.0, silence_s=60.0)


class Fleet:
    """Three devices at a hub, all on release 1, and a client that sends requests to one of them."""

    def __init__(self, folder: Path, hub: HubProcess, stack: ExitStack) -> None:
        self.hub = hub
        self.client = hub.client()
        key = PublisherKey.generate()
        self.digests: set[str] = set()
        models: dict[str, TinyModel] = {}
        for release in ("1", "2"):
            # Large enough to be killed during the download. Both cost alike: a trial judges cost.
            built = tiny_release(folder / "releases", release, profiles=PROFILES, hidden=32)
            publish(self.client, key, built)
            self.digests |= set(built.files)
            models[release] = built.model
        self.question = digits(models)
        claims = self.client.claim(ClaimRequest(count=len(PROFILES))).claims
        self.agents = []
        for number, (claim, profile) in enumerate(zip(claims, PROFILES, strict=True)):
            home = folder / f"cam-{number}"
            home.mkdir()
            agent = AgentProcess(home, hub, key, claim=claim, name=home.name, profile=profile)
            stack.callback(agent.end)
            agent.start()
            self.agents.append(agent)
        for agent in self.agents:
            agent.wait(lambda state: state.facts_known)
        self.roll_out("1", (100.0,))
        assert self.ended().status is Status.COMPLETED

    def roll_out(self, release: str, percents: tuple[float, ...]) -> None:
        spec = RolloutSpec(
            model="digits",
            release=release,
            waves=tuple(WaveSpec(percent=percent) for percent in percents),
            gate=GATE,
        )
        self.rollout = self.client.plan(spec).id
        self.client.command(self.rollout, Verb.START, Command())

    def ended(self) -> RolloutView:
        """Wait for the rollout's end, across restarts of the hub."""
        last = None
        for seen in watch(
            self.hub.client(), self.rollout, clock=SystemClock(), timeout_s=90.0, every_s=0.1
        ):
            if isinstance(seen, Observed):
                last = seen.view
        assert last is not None
        return last

    def first_taker(self, stage: Stage) -> AgentProcess:
        """The first device observed in ``stage``."""
        found: list[AgentProcess] = []
        seen = threading.Event()

        def look(agent: AgentProcess) -> None:
            def there(state: AgentState) -> bool:
                return seen.is_set() or only(state).stage is stage

            agent.wait(there)
            if not seen.is_set():
                found.append(agent)
                seen.set()

        threads = [threading.Thread(target=look, args=(agent,)) for agent in self.agents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found[0]


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(tmp_path / "hub", interval_s=0.3, offline_after_s=60))
        yield Fleet(tmp_path, hub, stack)


def kill_hub(fleet: Fleet) -> None:
    fleet.first_taker(Stage.WATCHING)
    fleet.hub.kill()
    fleet.hub.start()


def kill_agent(stage: Stage) -> Callable[[Fleet], None]:
    def kill(fleet: Fleet) -> None:
        agent = fleet.first_taker(stage)
        agent.kill()
        assert agent.check_valid(fleet.digests) in ("1", "2")
        agent.start()

    return kill


def kill_before_the_report(fleet: Fleet) -> None:
    """Between trial and confirm: the decision is stored, and not yet reported to the hub."""
    agent = fleet.first_taker(Stage.WATCHING)
    fleet.hub.kill()
    agent.wait(lambda state: any(one.kind == "confirmed" for one in state.spool))
    agent.kill()
    fleet.hub.start()
    agent.start()


@pytest.mark.slow
@pytest.mark.parametrize(
    "disaster",
    [
        pytest.param(lambda _: None, id="nothing"),
        pytest.param(kill_hub, id="hub in a wave"),
        pytest.param(kill_agent(Stage.FETCHING), id="agent in fetch", marks=pytest.mark.long),
        pytest.param(kill_agent(Stage.WATCHING), id="agent in trial", marks=pytest.mark.long),
        pytest.param(kill_before_the_report, id="agent between trial and confirm"),
    ],
)
def test_a_rollout_ends_the_same_whatever_is_killed(
    fleet: Fleet, disaster: Callable[[Fleet], None]
) -> None:
    with Asker(fleet.agents[0].serve, fleet.question) as asking:
        fleet.roll_out("2", (1, 50, 100))
        disaster(fleet)
        end = fleet.ended()
    assert (end.status, end.reason) == (Status.COMPLETED, "completed")
    assert [(wave.cut, wave.exposed) for wave in end.waves] == [(1, 1), (2, 2), (3, 3)]
    assert (end.evidence.healthy, end.evidence.failed, end.exposed) == (3, 0, 3)
    for agent in fleet.agents:
        agent.wait(lambda state: only(state).stage is Stage.IDLE and not state.spool)
        assert agent.check_valid(fleet.digests) == "2"
        assert agent.wait_serving()[1].release == "2"
    assert asking.faults == []
    assert {asking.answers[0], asking.answers[-1]} == {"1", "2"}


def test_the_clients_failures_would_be_seen(tmp_path: Path) -> None:
    question = digits({"1": classifier(tmp_path / "1.onnx")})
    with Asker("127.0.0.1:1", question) as asking:
        asking.wait_for_answers(3)
    assert asking.answers == []
    assert len(asking.faults) >= 3
