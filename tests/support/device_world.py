"""A simulated device: the real core, slots and fetcher on a disk whose power can fail.

Time is virtual and effects are done at once, in order, so that a run is the same every time and the
power can fail at each storage operation of it. Serving and proof are stand-ins that read the bytes
on the disk: the release's own bytes decide whether it serves and passes its proof.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec.structs import replace

from edgefleet.agent.effect import (
    Apply,
    CancelStaging,
    Effect,
    Fetch,
    FetchManifest,
    MovePointer,
    Probe,
    Prove,
    RemoveSlot,
    SendCheckIn,
    SetTimer,
    StopServing,
    WantedRelease,
    routed,
)
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    Event,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    StagingFailed,
    TimerFired,
)
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.lost_state import recover
from edgefleet.agent.slots import MODEL, Slots, path
from edgefleet.agent.state import AgentState, running
from edgefleet.agent.step import step
from edgefleet.agent.stored import to_store
from edgefleet.agent.table import Stage
from edgefleet.agent.trust import Trust
from edgefleet.agent.worker import Token
from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import Answer, Download
from edgefleet.protocol.device import Offer
from edgefleet.protocol.serving import LiveStats, ModelStatus, ProveResult, ServingStatus
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.agent_world import FACTS, GOLDEN_BYTES, manifest, manifest_sha256, model_bytes
from support.fake_hub import FakeHub
from support.memory_storage import MemoryStorage, PowerCut

RELEASES = ("1", "2", "sick", "liar", "brick")
BY_DIGEST = {sha256_hex(model_bytes(release)): release for release in RELEASES}
KEY = PublisherKey.generate()
ENVELOPES = {release: sign_manifest(manifest(release), KEY) for release in RELEASES}

Step = Callable[[AgentState, Event, float], tuple[AgentState, tuple[Effect, ...]]]
Stored = Callable[[AgentState], bytes]


class _HubOnDisk:
    """The hub's artifacts as a Link, sixteen pieces each."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        return Answer(200, {}, self.hub.manifests[path.rpartition("/")[2]])

    def download(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> Download:
        data = self.hub.artifacts[path.rpartition("/")[2]]
        asked = (headers or {}).get("Range", "")
        rest = data[int(asked.removeprefix("bytes=").rstrip("-") or 0) :]
        self.hub.served_bytes += len(rest)
        return Download(206 if asked else 200, {}, _pieces(rest))

    def close(self) -> None:
        return


def _pieces(data: bytes) -> Iterator[bytes]:
    size = max(1, len(data) // 16)
    return (data[start : start + size] for start in range(0, len(data), size))


class World:
    """One device and its hub. ``boot`` and ``run`` raise PowerCut when the power fails."""

    def __init__(self, *, core: Step = step, stored: Stored = to_store) -> None:
        self.storage = MemoryStorage()
        self.hub = FakeHub()
        self.hub.interval_s = 60.0
        for release in RELEASES:
            golden = GOLDEN_BYTES + release.encode()
            files = {sha256_hex(data): data for data in (model_bytes(release), golden)}
            self.hub.publish(ENVELOPES[release], files)
        self.core = core
        self.stored = stored
        self.effects_first = False
        self.now = 1000.0
        self.serving: ServingStatus | None = None
        self.proved: set[str] = set()
        self.activations: list[str] = []
        self.boots = 0
        self.state = AgentState()
        self.events: deque[Event] = deque()
        self.wake_at = 0.0
        self.trust = Trust((KEY.public.text,))

    def offer(self, release: str, *, rollout: str | None = None, action: str = "install") -> None:
        self.hub.offer = Offer(
            rollout=rollout or f"ro-{release}",
            action=action,  # type: ignore[arg-type] - one of two literals
            model="digits",
            release=release,
            manifest_sha256=manifest_sha256(release),
            confirm_after_s=10.0,
        )

    def boot(self, *, power_lost: bool = True) -> None:
        """Start the agent from the disk. If only the agent died, serving is still running."""
        self.boots += 1
        self.now += 5
        if power_lost:
            self.serving = None
        self.storage.power_on()

    def start(self) -> None:
        """The agent's first steps after ``boot``; the power may fail in them."""
        self.slots = Slots(self.storage)
        self.fetcher = Fetcher(self.storage, _HubOnDisk(self.hub), dict, _Clock(self))
        self.events.clear()
        state = self.slots.load()
        self.state = state or recover(self.slots, FACTS.profile, self.trust.open, self.now)
        self._take(
            Booted(
                facts=FACTS,
                whole=self.slots.whole(self.state),
                pointer=self.slots.pointer(),
                serving=self.serving,
                draw=0.5,
            )
        )

    def run(
        self, until: Callable[["World"], bool], *, drain: bool = True, steps: int = 600
    ) -> None:
        """Run until ``until`` is true and (``drain``) nothing is in progress."""
        for _ in range(steps):
            if until(self) and not (drain and self.events):
                return
            if self.events:
                self._take(self.events.popleft())
            else:
                self.now = max(self.now, self.wake_at)
                self._take(TimerFired(draw=0.5))
        raise AssertionError(f"no end after {steps} steps: {self.state}")

    def run_until_told(self, release: str) -> None:
        """Run until the hub has the release's final outcome, and no report is left."""
        self.run(lambda world: release in world.finals() and not world.state.spool)

    def check(self) -> None:
        """Check the invariants, with the power on or off."""
        storage, place = MemoryStorage(), self.storage.files.get("active")
        storage.files = self.storage.files
        if place is not None:
            digest = storage.digest(path("a" if place == b"a" else "b", MODEL))
            assert digest in BY_DIGEST, "the pointer names a slot without a whole model"
            assert BY_DIGEST[digest] in self.proved, "the pointer names a release never proved"
        for one in self.serving.models if self.serving is not None else ():
            assert one.release in self.proved, "a release serves that was never proved"

    def pointed(self) -> str | None:
        """The release in the slot that the pointer names."""
        place = self.storage.files.get("active")
        if place is None:
            return None
        data = self.storage.files.get(path("a" if place == b"a" else "b", MODEL), b"")
        return BY_DIGEST.get(sha256_hex(data))

    def running(self) -> str | None:
        now = running(self.state)
        return now[1] if now else None

    def finals(self) -> dict[str, list[str]]:
        """Final outcomes that the hub has received, by release."""
        heard: dict[str, list[str]] = {}
        for one in self.hub.outcomes.values():
            if one.kind not in ("trial_started", "deferred"):
                heard.setdefault(one.release, []).append(str(one.kind))
        return heard

    def _take(self, event: Event) -> None:
        self.state, effects = self.core(self.state, event, self.now)
        if self.effects_first:
            self._do_all(effects)
            self.slots.save(self.stored(self.state))
        else:
            self.slots.save(self.stored(self.state))
            self._do_all(effects)

    def _do_all(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, SetTimer):
                self.wake_at = effect.at
            elif (event := self._do(effect)) is not None:
                self.events.append(event)

    def _do(self, effect: Effect) -> Event | None:
        match effect:
            case SendCheckIn():
                return self._check_in(effect)
            case FetchManifest() | Fetch() | Prove():
                return self._work(effect)
            case Apply():
                return self._activate(effect)
            case Probe():
                return self._look()
            case StopServing():
                self.serving = None
                return self._look()
            case MovePointer():
                self.slots.move_pointer(effect.slot)
            case RemoveSlot():
                self.slots.remove(effect.slot)
            case CancelStaging() | SetTimer():
                pass
        return None

    def _check_in(self, effect: SendCheckIn) -> Event:
        seq = effect.check_in.seq
        try:
            return CheckInAnswered(seq=seq, answer=self.hub.take(effect.check_in), draw=0.5)
        except DeviceError as error:
            return CheckInFailed(seq=seq, code=error.code, draw=0.5, next_seq=self.hub.last_seq + 1)

    def _work(self, effect: FetchManifest | Fetch | Prove) -> Event:
        try:
            match effect:
                case FetchManifest():
                    digest, opened = self.fetcher.manifest(
                        effect.slot, effect.sha256, self.trust.open
                    )
                    return ManifestOpened(job=effect.job, sha256=digest, manifest=opened)
                case Fetch():
                    self.fetcher.file(effect.slot, effect.file, effect.artifact, Token())
                    return Fetched(job=effect.job)
                case Prove():
                    return Proved(job=effect.job, result=self._prove(effect))
        except EdgefleetError as error:
            return StagingFailed(job=effect.job, code=error.code, detail=error.message, draw=0.5)

    def _prove(self, effect: Prove) -> ProveResult:
        data = self.storage.files.get(path(effect.slot, MODEL), b"")
        release = BY_DIGEST.get(sha256_hex(data))
        if release is None or release == "liar":
            return ProveResult(passed=False, reason="golden_failed")
        self.proved.add(release)
        return ProveResult(passed=True)

    def _activate(self, effect: Apply) -> Event:
        (model,) = effect.models
        wanted = routed(model)
        digest = self.storage.digest(path(wanted.slot, MODEL))
        if digest is None or digest != wanted.installed.variant.artifact.sha256:
            return ActivationFailed(
                job=effect.job, reason="load_failed", detail="other bytes", draw=0.5
            )
        release = BY_DIGEST[digest]
        if model.trial is not None:
            self._check_admitted(model.trial)
        self.activations.append(release)
        if release == "brick":
            raise PowerCut
        pid = self.serving.pid if self.serving else 100 + self.boots
        mine = ModelStatus(
            model="digits",
            release=release,
            artifact_sha256=digest,
            ready=True,
            on_trial=model.trial is not None,
        )
        self.serving = ServingStatus(pid=pid, models=(mine,))
        return Activated(job=effect.job, status=self.serving)

    def _check_admitted(self, wanted: WantedRelease) -> None:
        attempt = self.state.attempt
        if attempt is None or attempt.action == "revert" or attempt.slot != wanted.slot:
            return
        started = [
            one
            for one in self.hub.outcomes.values()
            if one.kind == "trial_started" and one.rollout == attempt.rollout
        ]
        assert started, "a trial began that the hub had not admitted"

    def _look(self) -> Event:
        status = self.serving
        if status is not None and status.models[0].release == "sick":
            sick = replace(status.models[0], stats=LiveStats(requests=100, errors=50))
            status = ServingStatus(pid=status.pid, models=(sick,))
        return ServingProbed(status=status, alive=status is not None, draw=0.5)


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now

    def monotonic(self) -> float:
        return self._world.now


def state_of_each_stage() -> dict[Stage, AgentState]:
    """A state of each stage, as a real update passes through it."""
    found: dict[Stage, AgentState] = {}

    def core(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
        new, effects = step(state, event, now)
        if new.active or new.stage is Stage.IDLE:
            found.setdefault(new.stage, new)
        return new, effects

    world = World(core=core)
    world.offer("1")
    world.boot()
    world.start()
    for release in ("1", "2", "sick"):
        world.offer(release)
        world.run_until_told(release)
    assert set(found) == set(Stage), "an update passes through every stage"
    return found
