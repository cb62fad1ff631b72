"""Where the story is told: everything that has to run, and what of it can be seen."""

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
    LOOK_EVERY_S,
    REACHABLE,
    SETTLE_TIMEOUT_S,
    TICK_S,
)
from edgefleet.cli.demo.observations import StorySeen
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
    """What is to be staged. ``folder`` takes everything that the demo writes."""

    folder: Path
    field: Path
    devices: int  # simulated
    seed: int
    listen: str


class DemoEnvironment:
    """A hub, real agents with a client each, and a simulated fleet; all owned by ``programs``."""

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
        """Start the hub; the client to speak to it through."""
        hub = Program(
            "hub",
            "edgefleet.cli.main",
            [
                *("serve", "--json", "--data-dir", str(self.hub_folder)),
                *("--listen", self._plan.listen, "--checkin-listen", "127.0.0.1:0"),
                *("--interval", f"{INTERVAL_S}s", "--tick", f"{TICK_S}s"),
            ],
            self._plan.folder,
            heard=True,
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
        """Start the agents, their clients and the fleet; each enrols with a claim of its own."""
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
        """Until all are enrolled and most are online. Raises InternalError ``demo_failed``."""
        self._wait(
            lambda: (
                (fleet := self.hub.fleet()).total >= self.devices
                and fleet.online >= REACHABLE * self.devices
            ),
            ENROL_TIMEOUT_S,
            "The devices do not come online.",
        )

    def wait_until_settled(self, bad: tuple[str, ...]) -> None:
        """Until no device runs a bad release, by its own word and the hub's; or patience ends.

        Whether it holds is for the checks to say.
        """
        until = self._clock.monotonic() + SETTLE_TIMEOUT_S
        while self._clock.monotonic() < until:
            known = {*self.fleet.report().on_release, *self._listed()}
            known |= {client.last or "" for client in self.clients}
            if known.isdisjoint(bad):
                return
            self.pause(LOOK_EVERY_S)

    def seen(
        self,
        chapters: tuple[Chapter, ...],
        rollouts: tuple[RolloutView | None, ...],
        *,
        seconds: float,
    ) -> StorySeen:
        """Stop the clients, and gather what there is to be judged."""
        for client in self.clients:
            client.stop()
        return StorySeen(
            chapters=chapters,
            rollouts=rollouts,
            expected_devices=self.devices,
            hub=self.hub.fleet(),
            listed=self._listed(),
            fleet=self.fleet.report(),
            clients=tuple(client.seen() for client in self.clients),
            seconds=seconds,
            url=self.hub.url,
        )

    def pause(self, seconds: float) -> None:
        """Let time pass. Raises InternalError when a program has ended meanwhile."""
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
        """Every device in the hub's list by release, those offline too."""
        counts: Counter[str] = Counter()
        after: str | None = None
        while True:
            page = self.hub.devices(after=after, limit=DEVICE_PAGE_MAX)
            counts.update(device.release or "" for device in page.devices)
            after = page.next
            if after is None:
                return counts

    def _wait(self, holds: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        until = self._clock.monotonic() + timeout_s
        while not holds():
            if self._clock.monotonic() > until:
                raise InternalError("demo_failed", otherwise)
            self.pause(LOOK_EVERY_S)


def _ready(said: bytes) -> None:
    """Raises what kept the hub from starting, which it says in the place of where it listens."""
    try:
        decode(said, Serving)
    except EdgefleetError as no_address:
        raise error_from_problem(said) from no_address


def bad_releases(chapters: tuple[Chapter, ...]) -> tuple[str, ...]:
    """Those that are not meant to stay."""
    return tuple(chapter.release for chapter in chapters if chapter.ends is not Status.COMPLETED)
