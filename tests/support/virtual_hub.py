"""A MemoryHub for simulated devices, in the virtual time of their event loop."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from edgefleet.agent.state import Pace
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    EnrolAnswer,
    EnrolRequest,
    Facts,
)
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.rollout import (
    GateSpec,
    RolloutSpec,
    RolloutView,
    Verb,
    WaveSpec,
)
from edgefleet.rollout.checkin import OutOfSequence
from edgefleet.security.signing import PublisherKey, manifest_digest, sign_manifest
from edgefleet.sim.load.device import DeviceFacts, SimDevice, Surroundings
from edgefleet.sim.load.disk import Shelf
from edgefleet.sim.load.event_loop import EventLoop
from edgefleet.sim.load.fleet import SimulatedFleet
from edgefleet.sim.load.hub_api import Done, Failed
from edgefleet.sim.load.link import LinkFacts
from edgefleet.testing import MemoryHub
from support.sim_releases import (
    KEY,
    MODEL,
    SetBehaviours,
    golden_bytes,
    manifest,
    model_bytes,
)

INTERVAL_S = 2.0
TICK_S = 0.5
GATE = GateSpec(soak_s=2.0, confirm_after_s=3.0, silence_s=40.0, patience_s=60.0, min_requests=20)


class VirtualHub:
    """The interface of simulated devices to a MemoryHub of this ``kind``.

    The token of a device is its name.
    """

    def __init__(self, world: EventLoop, kind: type[MemoryHub] = MemoryHub) -> None:
        self.world = world
        self.memory = kind(now=world.now(), offline_after_s=3 * INTERVAL_S)
        self.artifacts: dict[str, bytes] = {}
        self.replays = 0
        self.trace: list[str] = []
        self._envelopes: dict[str, Envelope] = {}
        self._tick()

    # Operators.

    def publish(self, release: str, key: PublisherKey = KEY, *, model: str = MODEL) -> None:
        made = manifest(release, model)
        envelope = sign_manifest(made, key)
        digest = manifest_digest(envelope)
        self._envelopes[digest] = envelope
        for data in (model_bytes(release), golden_bytes(release)):
            self.artifacts[sha256_hex(data)] = data
        self._now().add_release(made, digest)

    def start(
        self, release: str, percents: Iterable[float] = (100.0,), *, model: str = MODEL
    ) -> str:
        waves = tuple(WaveSpec(percent=percent) for percent in percents)
        spec = RolloutSpec(model=model, release=release, waves=waves, gate=GATE)
        return self._now().start(spec)

    def command(self, rollout: str, verb: Verb) -> None:
        self._now().command(rollout, verb)

    def view(self, rollout: str) -> RolloutView:
        return self._now().view(rollout)

    def counts(self) -> Counter[str]:
        """The stored outcomes by release and kind."""
        outcomes = [stored.outcome for stored in self.memory.outcomes]
        return Counter(f"{outcome.release} {outcome.kind}" for outcome in outcomes)

    # Devices.

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None:
        self._now().add_device(
            request.name,
            request.facts.profile,
            request.labels,
            runtimes=request.facts.runtimes,
        )
        done(
            EnrolAnswer(
                device=request.name, token=request.name, checkin_url="", interval_s=INTERVAL_S
            )
        )

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None:
        hub = self._now()
        answer = hub.check_in(hub.row(token), check_in)
        if isinstance(answer, OutOfSequence):
            self.replays += 1
            done(Failed("checkin_replayed", next_seq=answer.next_seq))
            return
        models = " ".join(f"{one.phase} {one.release}" for one in check_in.models)
        self.trace.append(f"{hub.now:.3f} {token} {check_in.seq} {models}")
        want: Literal["", "models"] = "models" if answer.wants_models else ""
        done(
            CheckInAnswer(
                interval_s=INTERVAL_S, acked=answer.acked, offers=answer.offers, want=want
            )
        )

    def manifest(self, token: str, sha256: str, done: Done[Envelope]) -> None:
        done(self._envelopes.get(sha256) or Failed("not_found"))

    def artifact(self, token: str, sha256: str, done: Done[bytes]) -> None:
        done(self.artifacts.get(sha256) or Failed("not_found"))

    def _tick(self) -> None:
        self._now().evaluate()
        self.world.after(TICK_S, self._tick)

    def _now(self) -> MemoryHub:
        """The hub, at the time of the loop."""
        self.memory.now = self.world.now()
        return self.memory


class VirtualFleet:
    """Simulated devices around a VirtualHub. ``kind`` may be a hub with a planted bug."""

    def __init__(
        self, *, seed: int = 7, start: float = 1000.0, kind: type[MemoryHub] = MemoryHub
    ) -> None:
        self.world = EventLoop(start)
        self.hub = VirtualHub(self.world, kind)
        self.laboratory = SetBehaviours()
        self.around = Surroundings(
            world=self.world,
            hub=self.hub,
            shelf=Shelf(),
            laboratory=self.laboratory,
            trusted={KEY.public.keyid: KEY.public},
            seed=seed,
        )
        self.simulated = SimulatedFleet(self.around)

    def add(self, name: str, link: LinkFacts | None = None, **facts: object) -> SimDevice:
        """Enrol a device and start it."""
        said = DeviceFacts(
            name=name,
            facts=Facts(profile="generic_x86", agent_version="1", runtimes=("onnx",)),
            link=link or LinkFacts(),
            pace=Pace(probe_idle_s=2.0, probe_trial_s=1.0),
            **facts,  # type: ignore[arg-type] # the test's own facts
        )
        self.simulated.enrol(said, "claim")
        return self.simulated.devices[name]

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now() + seconds)

    def releases(self) -> dict[str, str | None]:
        """The release of ``digits`` on each device. None for none."""
        devices = self.simulated.devices.items()
        return {name: device.releases.get(MODEL) for name, device in devices}
