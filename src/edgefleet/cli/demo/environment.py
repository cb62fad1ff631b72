"""The running programs of the demo, and the observations of them."""

import time
from collections import Counter
from collections.abc import Callable
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
from edgefleet.cli.demo.observations import StoryObservations
from edgefleet.cli.demo.processes import Agent, FleetProcess, Program, Programs
from edgefleet.cli.demo.story import Chapter
from edgefleet.cli.demo.traffic import Client, Question
from edgefleet.cli.serve import Serving
from edgefleet.client.discover import discover
from edgefleet.client.hub import HubClient
from edgefleet.hub.limits import DEVICE_PAGE_MAX
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import RolloutView, Status
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
    field: Path
    devices: int  # simulated
    seed: int
    listen: str


class DemoEnvironment:
    """A hub, real agents with one client each, and a simulated fleet; owned by ``programs``."""

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

    def open_devices(self, questions: tuple[Question, ...]) -> None:
        """Start the agents, their clients and the fleet. Each device enrols with its own claim."""
        claims = self.hub.claim(ClaimRequest(count=self.devices)).claims
        file = self._plan.folder / "claims"
        file.write_text("\n".join(claims[len(REAL_AGENTS) :]))
        self.fleet = FleetProcess(
            self._plan.devices,
            hub=self.hub.url,
            claims=file,
            trust=self._trust,
            field=self._plan.field,
            seed=self._plan.seed,
            interval_s=INTERVAL_S,
            folder=self._plan.folder,
        )
        self._programs.add(self.fleet)
        self.agents = tuple(self._agent(*one) for one in zip(REAL_AGENTS, claims, strict=False))
        self.clients = tuple(
            Client(agent.name, "127.0.0.1", agent.port, questions) for agent in self.agents
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

    def wait_until_settled(self, bad: tuple[str, ...]) -> None:
        """Wait until no device runs a bad release, by the hub and by the devices themselves.

        Returns after ``SETTLE_TIMEOUT_S`` in any case: the checks find devices that are left.
        """
        until = self._clock.monotonic() + SETTLE_TIMEOUT_S
        while self._clock.monotonic() < until:
            known = {*self.fleet.report().on_release, *self._listed()}
            known |= {client.last or "" for client in self.clients}
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
        for client in self.clients:
            client.stop()
        return StoryObservations(
            chapters=chapters,
            rollouts=rollouts,
            expected_devices=self.devices,
            hub=self.hub.fleet(),
            listed=self._listed(),
            fleet=self.fleet.report(),
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
        )
        self._programs.add(agent)
        return agent

    def _listed(self) -> Counter[str]:
        """The devices in the hub's list by release, including offline devices."""
        counts: Counter[str] = Counter()
        after: str | None = None
        while True:
            page = self.hub.devices(after=after, limit=DEVICE_PAGE_MAX)
            for device in page.devices:
                counts.update([model.release or "" for model in device.models] or [""])
            after = page.next
            if after is None:
                return counts

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


def bad_releases(chapters: tuple[Chapter, ...]) -> tuple[str, ...]:
    """Releases whose rollout must not complete."""
    return tuple(chapter.release for chapter in chapters if chapter.ends is not Status.COMPLETED)
