"""A hub of a few lines and releases of a few bytes, for simulated devices in virtual time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from edgefleet.agent.state import InstalledRelease, Pace
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    EnrolAnswer,
    EnrolRequest,
    Facts,
    Offer,
    Outcome,
)
from edgefleet.protocol.release import (
    Artifact,
    Envelope,
    Golden,
    Quality,
    ReleaseManifest,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.serving import ProveResult
from edgefleet.security.signing import PublisherKey, manifest_digest, sign_manifest
from edgefleet.sim.load.device import DeviceFacts, SimDevice, Surroundings
from edgefleet.sim.load.disk import Shelf
from edgefleet.sim.load.event_loop import EventLoop
from edgefleet.sim.load.hub_api import Done, Failed
from edgefleet.sim.load.link import LinkFacts
from edgefleet.sim.load.serving_process import ModelBehaviour

MODEL = "digits"
KEY = PublisherKey.generate()
PROFILES = ("generic_x86", "jetson_nano", "raspberry_pi", "coral_tpu")


def model_bytes(release: str, size_bytes: int = 40_000) -> bytes:
    return f"model {release} ".encode().ljust(size_bytes, b".")


def golden_bytes(release: str) -> bytes:
    return f"golden {release} ".encode().ljust(20_000, b".")


def artifact(data: bytes) -> Artifact:
    return Artifact(sha256=sha256_hex(data), size_bytes=len(data))


def manifest(release: str, **changes: object) -> ReleaseManifest:
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))
    variants = tuple(
        Variant(
            profile=profile,
            runtime="onnx",
            precision="fp32",
            artifact=artifact(model_bytes(release)),
            inputs=(tensor,),
            outputs=(tensor,),
            max_batch=4,
            memory_limit_mib=64,
        )
        for profile in PROFILES
    )
    said = {
        "model": MODEL,
        "release": release,
        "variants": variants,
        "golden": Golden(
            artifact=artifact(golden_bytes(release)), cases=10, min_accuracy=0.9, min_agreement=0.9
        ),
        "quality": Quality(output="x", scores="probabilities", min_requests=10),
        "created_at": 0.0,
    }
    return ReleaseManifest(**{**said, **changes})


def behaviour(confidence: float = 0.95, *, passed: bool = True) -> ModelBehaviour:
    proof = ProveResult(
        passed=passed,
        reason="" if passed else "golden_failed",
        accuracy=0.95 if passed else 0.1,
        cases=10,
        latency_us_p50=100,
        load_ms=20.0,
    )
    spread = tuple(confidence + 0.04 * (place - 128) / 128 for place in range(256))
    return ModelBehaviour(proof, spread, 0.95, 100, 300, 20)


@dataclass
class ToyLaboratory:
    """Behaviours said by the test, by release."""

    behaviours: dict[str, ModelBehaviour] = field(default_factory=dict)
    studied: Counter[str] = field(default_factory=Counter)

    def study(
        self,
        held: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour | Failed], None],
    ) -> None:
        assert model == model_bytes(held.release)
        assert golden == golden_bytes(held.release)
        self.studied[held.release] += 1
        done(self.behaviours.get(held.release, behaviour()))


class ToyHub:
    """Offers ``desired`` to every device that runs another release; counts each outcome once.

    With ``double`` it forgets which outcomes it has: the planted bug.
    """

    def __init__(self, *, interval_s: float = 2.0, double: bool = False) -> None:
        self.desired: str | None = None
        self.action = "install"
        self.interval_s = interval_s
        self.envelopes: dict[str, Envelope] = {}
        self.digests: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}
        self.outcomes: list[tuple[str, Outcome]] = []
        self.running: dict[str, str | None] = {}
        self.seqs: dict[str, int] = {}
        self.replays = 0
        self.trace: list[str] = []
        self._double = double
        self._known: set[tuple[str, str]] = set()

    def publish(self, release: str, key: PublisherKey = KEY, **changes: object) -> None:
        envelope = sign_manifest(manifest(release, **changes), key)
        self.digests[release] = manifest_digest(envelope)
        self.envelopes[self.digests[release]] = envelope
        for data in (model_bytes(release), golden_bytes(release)):
            self.artifacts[sha256_hex(data)] = data

    def counts(self) -> Counter[str]:
        return Counter(f"{outcome.release} {outcome.kind}" for _, outcome in self.outcomes)

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None:
        done(
            EnrolAnswer(
                device=request.name, token=request.name, checkin_url="", interval_s=self.interval_s
            )
        )

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None:
        if check_in.seq <= self.seqs.get(token, 0):
            self.replays += 1
            done(Failed("checkin_replayed", "", self.seqs[token] + 1))
            return
        self.seqs[token] = check_in.seq
        for outcome in check_in.outcomes:
            if self._double or (token, outcome.id) not in self._known:
                self._known.add((token, outcome.id))
                self.outcomes.append((token, outcome))
        self.running[token] = check_in.release
        self.trace.append(f"{token} {check_in.seq} {check_in.phase} {check_in.release}")
        done(
            CheckInAnswer(
                interval_s=self.interval_s,
                acked=tuple(outcome.id for outcome in check_in.outcomes),
                offer=self._offer(check_in),
            )
        )

    def manifest(self, token: str, sha256: str, done: Done[Envelope]) -> None:
        done(self.envelopes.get(sha256) or Failed("not_found"))

    def artifact(self, token: str, sha256: str, done: Done[bytes]) -> None:
        done(self.artifacts.get(sha256) or Failed("not_found"))

    def _offer(self, check_in: CheckIn) -> Offer | None:
        if self.desired is None or check_in.release == self.desired:
            return None
        return Offer(
            rollout=f"to-{self.desired}",
            action=self.action,  # type: ignore[arg-type] # a test says which
            model=MODEL,
            release=self.desired,
            manifest_sha256=self.digests[self.desired],
            confirm_after_s=4.0,
        )


class ToyFleet:
    """Devices around a ToyHub, in virtual time."""

    def __init__(self, *, seed: int = 7, hub: ToyHub | None = None, start: float = 1000.0) -> None:
        self.world = EventLoop(start)
        self.hub = hub or ToyHub()
        self.laboratory = ToyLaboratory()
        self.shelf = Shelf()
        self.around = Surroundings(
            world=self.world,
            hub=self.hub,
            shelf=self.shelf,
            laboratory=self.laboratory,
            trusted={KEY.public.keyid: KEY.public},
            seed=seed,
        )
        self.devices: dict[str, SimDevice] = {}

    def add(self, name: str, link: LinkFacts | None = None, **facts: object) -> SimDevice:
        said = DeviceFacts(
            name=name,
            facts=Facts(profile="generic_x86", agent_version="1", runtimes=("onnx",)),
            link=link or LinkFacts(),
            pace=Pace(probe_idle_s=2.0, probe_trial_s=1.0),
            **facts,  # type: ignore[arg-type] # the test's own facts
        )
        device = SimDevice(said, name, self.around)
        self.devices[name] = device
        device.boot()
        return device

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now() + seconds)

    def releases(self) -> dict[str, str | None]:
        return {name: device.release for name, device in self.devices.items()}
