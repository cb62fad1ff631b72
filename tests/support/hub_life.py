"""Random histories of a hub, to be compared with a hub on a copied folder."""

import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import Outcome, OutcomeKind, Phase
from edgefleet.protocol.device_commands import LabelDevice
from edgefleet.protocol.operator import DeviceView
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import InsideDevice, ManualClock, report

RELEASES = ("1", "2", "3")
_STARTS = (OutcomeKind.TRIAL_STARTED, OutcomeKind.WITHDRAWN)  # they leave a device in trial
GATE = GateSpec(soak_s=0, min_sample=1, confirm_after_s=0, max_error_rate=0.3)


def shown(hub: Hub) -> dict[str, object]:
    """All operator views, except the history of the last hour.

    Every last check-in is from before the start of a hub that was just started.
    """
    views = [replace(view, before_start=False) for view in hub.devices(None, 1000).devices]
    rollouts = hub.rollouts().rollouts
    return {
        "fleet": hub.fleet(),
        "models": hub.models(),
        "rollouts": rollouts,
        "devices": views,
        "why devices": [hub.why_device(view.name) for view in views],
        "why rollouts": [hub.why_rollout(view.id) for view in rollouts],
        "why releases": [hub.why_release("digits", release) for release in RELEASES],
        "audit": hub.audit(None, 1000),
        "keys": hub.registry.keys(),
        "outcomes": sorted(
            line for line in hub.metrics().splitlines() if "outcomes_total{" in line
        ),
    }


@contextmanager
def refused(*codes: str) -> Iterator[None]:
    """Accept an operator error with one of these codes."""
    try:
        yield
    except OperatorError as error:
        if error.code not in codes:
            raise


class Life:
    """Random requests to a hub, drawn from a seed.

    With ``ends`` many rollouts finish: they have no bake, and most reports end a trial. Labels of
    devices change as well.
    """

    def __init__(
        self,
        hub: Hub,
        clock: ManualClock,
        devices: list[InsideDevice],
        seed: int,
        *,
        ends: bool = False,
    ) -> None:
        self._ends = ends
        self._hub = hub
        self._clock = clock
        self._devices = devices
        self._draw = random.Random(seed)
        self._offered: dict[str, list[str]] = {device.name: [] for device in devices}

    def go_on_at(self, hub: Hub) -> None:
        """Send the next requests to another hub, with the same devices."""
        self._hub = hub

    async def step(self) -> None:
        """Send one random request."""
        self._clock.time += 0.25
        things = [*[self._report] * 6, self._plan, self._command, self._tick]
        if self._ends:
            things += [self._label, self._command, self._command, self._tick]
        await self._draw.choice(things)()

    async def _report(self) -> None:
        draw = self._draw
        device = draw.choice(self._devices)
        rollouts = [*self._offered[device.name] * 4, "unknown"]  # the fields that a device can know
        starts = not self._ends or draw.random() < 0.15
        kinds = [kind for kind in OutcomeKind if starts or kind not in _STARTS]
        outcomes = [
            Outcome(
                id=f"o{draw.randrange(400)}",
                rollout=draw.choice(rollouts),
                release=draw.choice(RELEASES),
                kind=draw.choice(kinds),
                at=self._clock.time,
                reason=draw.choice(("", "golden_failed", "confidence_drop")),
            )
            for _ in range(draw.randrange(4))
        ]
        phase = draw.choice((Phase.IDLE, Phase.IDLE, Phase.FETCHING, Phase.TRIAL))
        said = device.said(*outcomes, running=draw.choice((None, *RELEASES)), phase=phase)
        offer = (await report(self._hub, device, said)).offer
        if offer is not None and offer.rollout not in self._offered[device.name]:
            self._offered[device.name].append(offer.rollout)

    async def _plan(self) -> None:
        spec = RolloutSpec(
            model="digits",
            release=self._draw.choice(RELEASES),
            selector=self._draw.choice(("", "site=lyon", "site=oslo")),
            waves=(WaveSpec(percent=20), WaveSpec(percent=100)),
            gate=GATE,
            bake_s=0 if self._ends else 86_400,
        )
        with refused("rollout_overlap", "release_failed_before", "release_current"):
            await self._hub.plan(spec, OPERATOR_TOKEN)

    async def _command(self) -> None:
        rollouts = self._hub.rollouts().rollouts
        verbs = [Verb.START, Verb.START, *Verb]
        if not rollouts:
            return
        view = self._draw.choice(rollouts)
        verb = Verb.START if view.status is Status.PLANNED else self._draw.choice(verbs)
        with refused("verb_not_now", "rollout_overlap"):
            await self._hub.command(view.id, verb, Command(note="drawn"), OPERATOR_TOKEN)

    async def _tick(self) -> None:
        await self._hub.loop.tick()

    async def _label(self) -> None:
        site = self._draw.choice(("lyon", "oslo", "rome"))
        name = self._draw.choice(self._devices).name
        await self._hub.device_commands.label(
            self._hub.row(name), LabelDevice(set={"site": site}), OPERATOR_TOKEN
        )


def store_last_contacts(data_dir: Path, views: Iterable[DeviceView]) -> None:
    """Store the times of the last check-ins, which a hub may forget."""
    with closing(sqlite3.connect(data_dir / "hub.sqlite")) as connection, connection:
        connection.executemany(
            "UPDATE device_standing SET last_seen = ?"
            " WHERE row = (SELECT row FROM device WHERE name = ?)",
            [(view.last_seen, view.name) for view in views],
        )
