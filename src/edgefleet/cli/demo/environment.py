"""The running programs of the demo, and the observations of them."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError, InternalError
from edgefleet.cli.demo.limits import (
    ENROL_TIMEOUT_S,
    INTERVAL_S,
    POLL_EVERY_S,
    REACHABLE,
    SETTLE_TIMEOUT_S,
    TICK_S,
)
from edgefleet.cli.demo.observations import RealDevice, StoryObservations
from edgefleet.cli.demo.processes import Agent, FleetProcess, Program, Programs
from edgefleet.cli.demo.story import Chapter
from edgefleet.cli.demo.traffic import Client, Questions
from edgefleet.cli.serve import Serving
from edgefleet.client.discover import discover
from edgefleet.client.hub import HubClient
from edgefleet.hub.limits import DEVICE_PAGE_MAX
from edgefleet.protocol.operator import ClaimRequest, DeviceView
from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.wire import decode, error_from_problem
from edgefleet.security.signing import PublisherKey

REAL_AGENTS: Final = (
    ("edge-x86", "generic_x86"),
    ("edge-jetson", "jetson_nano"),
    ("edge-pi", "raspberry_pi"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of the demo. All files of the demo are written into ``folder``."""

    folder: Path
    fields: Mapping[str, Path]  # field data by model
    agent: str  # the module of the real agents' program
    devices: int  # simulated
    seed: int
    listen: str


class DemoEnvironment:
    """A hub, real agents, a client for each of their models, and a simulated fleet.

    All are owned by ``programs``.
    """

    def __init__(self, plan: Plan, programs: Programs, clock: Clock) -> None:
        self._plan = plan
        self._programs = programs
        self._clock = clock
        self.key = plan.folder / "publisher.key"
        self.hub_folder = plan.folder / "hub"
        self.agents: tuple[Agent, ...] = ()
        self.clients: tuple[Client, ...] = ()
        self._trust = plan.folder / "trust"

    @property
    def devices(self) -> int:
        return self._plan.devices + len(REAL_AGENTS)

    def open_hub(self) -> HubClient:
        """Start the hub. Returns a client for it."""
        hub = Program(
            "hub",
            "edgefleet.cli.main",
            [
                *("serve", "--json", "--data-dir", str(self.hub_folder)),
                *("--listen", self._plan.listen, "--checkin-listen", "127.0.0.1:0"),
                *("--interval", f"{INTERVAL_S}s", "--tick", f"{TICK_S}s"),
            ],
            self._plan.folder,
            read_output=True,
        )
        self._programs.add(hub)
        _ready(hub.line())
        key = PublisherKey.generate()
        key.save(self.key)
        self._trust.write_text(f"{key.public.text}\n")
        self.hub = discover(data_dir=self.hub_folder, environ={}).client()
        self._programs.callback(self.hub.close)
        return self.hub

    def open_devices(self, questions: Sequence[Questions]) -> None:
        """Start the agents, their clients and the fleet. Each device enrols with its own claim."""
        claims = self.hub.claim(ClaimRequest(count=self.devices)).claims
        file = self._plan.folder / "claims"
        file.write_text("\n".join(claims[len(REAL_AGENTS) :]))
        self.fleet = FleetProcess(
            self._plan.devices,
            hub=self.hub.url,
            claims=file,
            trust=self._trust,
            fields=self._plan.fields,
            seed=self._plan.seed,
            interval_s=INTERVAL_S,
            folder=self._plan.folder,
        )
        self._programs.add(self.fleet)
        self.agents = tuple(self._agent(*one) for one in zip(REAL_AGENTS, claims, strict=False))
        self.clients = tuple(
            Client(agent.name, "127.0.0.1", agent.port, asked)
            for agent in self.agents
            for asked in questions
        )
        for client in self.clients:
            client.start()
            self._programs.callback(client.stop)

    def wait_for_devices(self) -> None:
        """Wait until all are enrolled and most are online. Raises InternalError ``demo_failed``."""
        self._wait(
            lambda: (
                (fleet := self.hub.fleet()).total >= self.devices
                and fleet.online >= REACHABLE * self.devices
            ),
            ENROL_TIMEOUT_S,
            f"The devices are not online after {ENROL_TIMEOUT_S:g} s.",
        )

    def wait_until_settled(self, chapters: Sequence[Chapter]) -> None:
        """Wait until no device runs a bad release, by the hub and by the devices themselves.

        Returns after ``SETTLE_TIMEOUT_S`` in any case: the checks find devices that are left.
        """
        bad = {(one.model, one.release) for one in chapters if not one.is_good}
        until = self._clock.monotonic() + SETTLE_TIMEOUT_S
        while self._clock.monotonic() < until:
            places = (self.fleet.report().on_release, _counts(self._devices()))
            known = {(model, one) for place in places for model in place for one in place[model]}
            known |= {(client.model, client.last or "") for client in self.clients}
            if known.isdisjoint(bad):
                return
            self.pause(POLL_EVERY_S)

    def observe(
        self,
        chapters: tuple[Chapter, ...],
        rollouts: tuple[RolloutView | None, ...],
        *,
        seconds: float,
    ) -> StoryObservations:
        """Stop the clients, and collect the observations."""
        real = {agent.name: _served(agent) for agent in self.agents}
        for client in self.clients:
            client.stop()
        devices = self._devices()
        return StoryObservations(
            chapters=chapters,
            rollouts=rollouts,
            expected_devices=self.devices,
            hub=self.hub.fleet(),
            listed=_counts(devices),
            fleet=self.fleet.report(),
            real=tuple(
                RealDevice(device.name, _releases(device), real[device.name])
                for device in devices
                if device.name in real
            ),
            clients=tuple(client.observed() for client in self.clients),
            seconds=seconds,
            url=self.hub.url,
        )

    def pause(self, seconds: float) -> None:
        """Sleep. Raises InternalError if a program has exited meanwhile."""
        time.sleep(seconds)
        self._programs.check()

    def _agent(self, named: tuple[str, str], claim: str) -> Agent:
        name, profile = named
        agent = Agent(
            name,
            profile,
            hub=self.hub.url,
            claim=claim,
            trust=self._trust,
            folder=self._plan.folder,
            module=self._plan.agent,
        )
        self._programs.add(agent)
        return agent

    def _devices(self) -> list[DeviceView]:
        """The hub's list of devices, including offline devices."""
        found: list[DeviceView] = []
        after: str | None = None
        while True:
            page = self.hub.devices(after=after, limit=DEVICE_PAGE_MAX)
            found += page.devices
            after = page.next
            if after is None:
                return found

    def _wait(self, reached: Callable[[], bool], timeout_s: float, failure: str) -> None:
        until = self._clock.monotonic() + timeout_s
        while not reached():
            if self._clock.monotonic() > until:
                raise InternalError("demo_failed", failure)
            self.pause(POLL_EVERY_S)


def _ready(line: bytes) -> None:
    """Raises the hub's error if the hub printed one instead of its addresses."""
    try:
        decode(line, Serving)
    except EdgefleetError as no_address:
        raise error_from_problem(line) from no_address


def _releases(device: DeviceView) -> dict[str, str]:
    """The release of each model on the device, by the hub."""
    return {one.model: one.release for one in device.models if one.release is not None}


def _counts(devices: Sequence[DeviceView]) -> dict[str, Counter[str]]:
    """The devices by model and release."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for device in devices:
        for model, release in _releases(device).items():
            counts[model][release] += 1
    return counts


def _served(agent: Agent) -> dict[str, str]:
    """The confirmed release of each model that the agent's serving process serves."""
    status = agent.serving()
    models = status.models if status else ()
    return {one.model: one.release for one in models if one.ready and not one.on_trial}
