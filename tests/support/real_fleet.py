"""A real hub with real agents, for tests of what an operator does with devices."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgefleet.client.hub import HubClient
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess
from support.command_line import CommandLine
from support.hub_process import HubProcess, running_hub
from support.tiny_releases import publish, tiny_release

GATE = GateSpec(min_sample=1, soak_s=0.1, confirm_after_s=0.5, max_latency_p95_ms=60_000.0)
WAIT_S = 60.0


class RealFleet:
    """Agents are added by name. Their check-in interval is 0.3 s."""

    def __init__(self, folder: Path, hub: HubProcess, stack: ExitStack) -> None:
        self.folder = folder
        self.hub = hub
        self.key = PublisherKey.generate()
        self._stack = stack
        self.edgefleet = CommandLine(
            folder, {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_DATA_DIR": str(hub.data_dir)}
        )

    @property
    def client(self) -> HubClient:
        return self.hub.client()

    def agent(self, name: str, home: str = "") -> AgentProcess:
        """A device with a claim of its own, which is not started."""
        (claim,) = self.client.claim(ClaimRequest()).claims
        place = self.folder / (home or name)
        place.mkdir(exist_ok=True)
        agent = AgentProcess(place, self.hub, self.key, claim=claim, name=name)
        self._stack.callback(agent.end)
        return agent

    def add(self, name: str, *options: str) -> AgentProcess:
        """A device that has enrolled."""
        agent = self.agent(name)
        agent.start(*options)
        agent.wait(lambda state: state.facts_known)
        return agent

    def roll_out(self, release: str, selector: str = "") -> str:
        """Publish a release, and roll it out until it is completed."""
        client = self.client
        publish(client, self.key, tiny_release(self.folder / "releases", release))
        spec = RolloutSpec(
            model="digits",
            release=release,
            selector=selector,
            waves=(WaveSpec(percent=100),),
            gate=GATE,
            bake_s=0,
        )
        rollout = client.plan(spec).id
        client.command(rollout, Verb.START, Command())
        self.until(lambda: client.rollout(rollout).status is Status.COMPLETED)
        return rollout

    def runs(self, device: str) -> str | None:
        """The release that the device runs, as the hub shows it."""
        return next((one.release for one in self.client.device(device).models), None)

    def until(self, what: Callable[[], object]) -> None:
        """Wait until it is true."""
        until = time.monotonic() + WAIT_S
        while not what():
            assert time.monotonic() < until, self.hub.log.read_text()
            time.sleep(0.05)


@contextmanager
def real_fleet(folder: Path) -> Iterator[RealFleet]:
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(folder / "hub", interval_s=0.3, offline_after_s=3))
        yield RealFleet(folder, hub, stack)
