"""A simulated device: the real core, slots and fetcher on a disk whose power can fail.

Time is virtual and effects are done at once, in order, so that a run is the same every time and the
power can fail at each storage operation of it. Serving and proof are stand-ins that read the bytes
on the disk: the release's own bytes decide whether it serves and passes its proof.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec.structs import replace

from edgefleet.agent.effect import (
    Apply,
    CancelStaging,
    Effect,
    Fetch,
    FetchManifest,
    GiveTruth,
    MovePointer,
    Probe,
    Prove,
    RemoveSlot,
    SendCheckIn,
    SetTimer,
    StopServing,
    WantedModel,
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
from edgefleet.agent.slots import MODEL, POINTER, Slots, path, read_pointer
from edgefleet.agent.state import AgentState, ModelState, running
from edgefleet.agent.step import step
from edgefleet.agent.stored import to_store
from edgefleet.agent.table import Stage
from edgefleet.agent.trust import Trust
from edgefleet.agent.worker import Token
from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import Answer, Download
from edgefleet.protocol.serving import (
    LiveStats,
    ModelStatus,
    ProveResult,
    ServingStatus,
    model_status,
)
from edgefleet.protocol.shadow import Shadow, ShadowStatus
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.agent_world import FACTS, golden_bytes, manifest, model_bytes, offer
from support.fake_hub import FakeHub
from support.memory_storage import MemoryStorage, PowerCut

RELEASES = ("1", "2", "sick", "liar", "brick", "odd")
MODELS = ("detector", "digits", "gate")
BY_DIGEST = {
    sha256_hex(model_bytes(release, model=model)): (model, release)
    for model in MODELS
    for release in RELEASES
}
SHADOW = Shadow(share=0.25, samples=20)
KEY = PublisherKey.generate()
ENVELOPES = {
    (model, release): sign_manifest(manifest(release, model=model), KEY)
    for model, release in BY_DIGEST.values()
}

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
        if not asked:
            return Download(200, {}, _pieces(rest))
        place = f"bytes {len(data) - len(rest)}-{len(data) - 1}/{len(data)}"
        return Download(206, {"content-range": place}, _pieces(rest))

    def close(self) -> None:
        return


def _pieces(data: bytes) -> Iterator[bytes]:
    size = max(1, len(data) // 16)
    return (data[start : start + size] for start in range(0, len(data), size))


class World:
    """One device and its hub. ``boot`` and ``run`` raise PowerCut when the power fails.

    Arguments ``model`` are "digits" where a test has one.
    """

    def __init__(
        self, *, core: Step = step, stored: Stored = to_store, slots: type[Slots] = Slots
    ) -> None:
        self.storage = MemoryStorage()
        self.hub = FakeHub()
        self.hub.interval_s = 60.0
        for (model, release), envelope in ENVELOPES.items():
            data = (model_bytes(release, model=model), golden_bytes(release, model=model))
            self.hub.publish(envelope, {sha256_hex(one): one for one in data})
        self.core = core
        self.stored = stored
        self.slots_type = slots
        self.effects_first = False
        self.now = 1000.0
        self.serving: ServingStatus | None = None
        self.proved: set[tuple[str, str]] = set()
        self.confirmed: set[tuple[str, str]] = set()
        self.activations: list[str] = []
        self.shadows: list[str] = []  # the shadow of each Apply with one
        self.slow: set[str] = set()  # models whose downloads do not end
        self.requests: dict[str, int] = {}  # of each model, between two probes
        self.served_requests: dict[str, int] = {}
        self.shadow: Shadow | None = None  # of each offer
        self.boots = 0
        self.state = AgentState()
        self.events: deque[Event] = deque()
        self.wake_at = 0.0
        self.trust = Trust((KEY.public.text,))

    @property
    def mine(self) -> ModelState:
        """The state of model digits."""
        return self.state.models.get("digits", ModelState())

    @property
    def stage(self) -> Stage:
        return self.mine.stage

    def offer(
        self,
        release: str,
        *,
        model: str = "digits",
        rollout: str | None = None,
        action: str = "install",
        shadow: Shadow | None = None,
    ) -> None:
        self.hub.offers[model] = offer(
            release, model=model, rollout=rollout, action=action, shadow=shadow or self.shadow
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
        self.slots = self.slots_type(self.storage)
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
        for model, name in read_pointer(self.storage.files.get(POINTER, b"")).items():
            data = self.storage.files.get(path(model, name, MODEL), b"")
            found = BY_DIGEST.get(sha256_hex(data))
            assert found is not None, "the pointer names a slot without a whole model"
            assert found in self.proved, "the pointer names a release never proved"
            assert found in self.confirmed, "the pointer names a release never confirmed"
            assert found[0] == model, "the pointer names a slot of another model"
        for one in self.serving.models if self.serving is not None else ():
            assert (one.model, one.release) in self.proved, "a release serves that was never proved"

    def pointed(self, model: str = "digits") -> str | None:
        """The release in the slot that the pointer names."""
        name = read_pointer(self.storage.files.get(POINTER, b"")).get(model)
        if name is None:
            return None
        data = self.storage.files.get(path(model, name, MODEL), b"")
        found = BY_DIGEST.get(sha256_hex(data))
        return found[1] if found else None

    def running(self, model: str = "digits") -> str | None:
        return running(self.state.models.get(model, ModelState()))

    def served(self, model: str = "digits") -> str | None:
        """The release that gets the requests."""
        own = model_status(self.serving, model)
        return own.release if own else None

    def finals(self) -> dict[str, list[str]]:
        """Final outcomes that the hub has received, by release (of all models)."""
        heard: dict[str, list[str]] = {}
        for one in self.hub.outcomes.values():
            if one.kind not in ("trial_started", "deferred"):
                heard.setdefault(one.release, []).append(str(one.kind))
        return heard

    def asking(self) -> set[str]:
        """The models that ask the hub for admission."""
        models = self.state.models
        return {name for name in models if models[name].stage is Stage.ANNOUNCING}

    def told(self, rollout: str) -> list[str]:
        """Kinds of outcomes of the rollout that the hub has received."""
        return [str(one.kind) for one in self.hub.outcomes.values() if one.rollout == rollout]

    def _take(self, event: Event) -> None:
        self.state, effects = self.core(self.state, event, self.now)
        for mine in self.state.models.values():
            for one in (mine.a, mine.b):
                if one.confirmed and one.installed is not None:
                    self.confirmed.add((one.installed.model, one.installed.release))
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
                return self._apply(effect)
            case Probe():
                return self._look()
            case StopServing():
                self.serving = None
                return self._look()
            case MovePointer():
                self.slots.move_pointer(effect.slots)
            case RemoveSlot():
                self.slots.remove(effect.model, effect.slot)
            case CancelStaging() | SetTimer() | GiveTruth():
                pass
        return None

    def _check_in(self, effect: SendCheckIn) -> Event:
        seq = effect.check_in.seq
        try:
            return CheckInAnswered(seq=seq, answer=self.hub.take(effect.check_in), draw=0.5)
        except EdgefleetError as error:
            return CheckInFailed(seq=seq, code=error.code, draw=0.5, next_seq=self.hub.last_seq + 1)

    def _work(self, effect: FetchManifest | Fetch | Prove) -> Event | None:
        model, job = effect.model, effect.job
        if isinstance(effect, Fetch) and model in self.slow:
            return None
        try:
            match effect:
                case FetchManifest():
                    digest, opened = self.fetcher.manifest(
                        model, effect.slot, effect.sha256, self.trust.open
                    )
                    free_bytes, slot_bytes = self.fetcher.space(model, effect.slot)
                    return ManifestOpened(
                        model=model, job=job, sha256=digest, manifest=opened,
                        free_bytes=free_bytes, slot_bytes=slot_bytes,
                    )  # fmt: skip
                case Fetch():
                    self.fetcher.file(model, effect.slot, effect.file, effect.artifact, Token())
                    return Fetched(model=model, job=job)
                case Prove():
                    return Proved(model=model, job=job, result=self._prove(effect))
        except EdgefleetError as error:
            return StagingFailed(
                model=model, job=job, code=error.code, detail=error.message, draw=0.5,
                found=getattr(error, "found", ""), refusal=getattr(error, "refusal", ""),
            )  # fmt: skip

    def _prove(self, effect: Prove) -> ProveResult:
        data = self.storage.files.get(path(effect.model, effect.slot, MODEL), b"")
        found = BY_DIGEST.get(sha256_hex(data))
        if found is None or found[1] == "liar":
            return ProveResult(passed=False, reason="golden_failed")
        self.proved.add(found)
        return ProveResult(passed=True)

    def _apply(self, effect: Apply) -> Event:
        """All or nothing: the bytes of each slot have to be those of the wanted release."""
        pid = self.serving.pid if self.serving else 100 + self.boots
        before, models = self.serving, list[ModelStatus]()
        for model in effect.models:
            shadow = model.shadow.release if model.shadow else None
            for wanted in (model.confirmed, model.trial, shadow):
                if wanted is not None and not self._is_whole(wanted):
                    return ActivationFailed(
                        job=effect.job, model=model.model, reason="load_failed", draw=0.5,
                        detail="other bytes",
                    )  # fmt: skip
            if model.trial is not None:
                self._check_admitted(model.trial)
            wanted = routed(model)
            models.append(
                ModelStatus(
                    model=model.model,
                    release=wanted.installed.release,
                    artifact_sha256=wanted.installed.variant.artifact.sha256,
                    ready=True,
                    on_trial=model.trial is not None,
                    shadow=self._shadow(model, before),
                )
            )
            if wanted.installed.release == "brick":
                self.activations.append("brick")
                raise PowerCut
            old = model_status(before, model.model)
            if old is None or old.release != wanted.installed.release:
                self.activations.append(wanted.installed.release)
        assert sum(one.on_trial for one in models) <= 1, "two models are in trial"
        self.serving = ServingStatus(pid=pid, generation=effect.generation, models=tuple(models))
        return Activated(job=effect.job, status=self.serving)

    def _shadow(self, model: WantedModel, before: ServingStatus | None) -> ShadowStatus | None:
        """The candidate as a shadow. One that is loaded already keeps its counters."""
        if model.shadow is None:
            return None
        assert model.confirmed is not None, "a shadow without an active release"
        installed = model.shadow.release.installed
        self.shadows.append(installed.release)
        if installed.release == "brick":
            raise PowerCut
        old = model_status(before, model.model)
        if old is not None and old.shadow and old.shadow.release == installed.release:
            return old.shadow
        digest = installed.variant.artifact.sha256
        return ShadowStatus(release=installed.release, artifact_sha256=digest, ready=True)

    def _is_whole(self, wanted: WantedRelease) -> bool:
        model = wanted.installed.model
        digest = self.storage.digest(path(model, wanted.slot, MODEL))
        return digest == wanted.installed.variant.artifact.sha256

    def _check_admitted(self, wanted: WantedRelease) -> None:
        attempt = self.state.models[wanted.installed.model].attempt
        if attempt is None or attempt.action == "revert" or attempt.slot != wanted.slot:
            return
        assert "trial_started" in self.told(attempt.rollout), (
            "a trial began that the hub had not admitted"
        )

    def _look(self) -> Event:
        if self.serving is not None:
            models = tuple(map(self._used, self.serving.models))
            self.serving = replace(self.serving, models=models)
        status = self.serving
        return ServingProbed(status=status, alive=status is not None, draw=0.5)

    def _used(self, model: ModelStatus) -> ModelStatus:
        """The model after the requests since the last probe."""
        if model.shadow is not None:
            samples = model.shadow.samples + 15
            differ = samples if model.shadow.release == "odd" else 0
            shadow = replace(
                model.shadow, asked=4 * samples, samples=samples, disagreement=float(differ)
            )
            return replace(model, shadow=shadow)
        if model.release == "sick":
            return replace(model, stats=LiveStats(requests=100, errors=50))
        came = self.requests.get(model.model, 0)
        self.served_requests[model.model] = self.served_requests.get(model.model, 0) + came
        return replace(model, stats=replace(model.stats, requests=model.stats.requests + came))

    def reported(self) -> dict[str, int]:
        """The requests that the hub knows of, by model."""
        found: dict[str, int] = {}
        for one in self.hub.check_ins:
            if one.telemetry is not None and one.telemetry.model is not None:
                model = one.telemetry.model
                found[model] = found.get(model, 0) + one.telemetry.requests
        return found

    @staticmethod
    def no_answer() -> NetworkError:
        """The error of a check-in without an answer."""
        return NetworkError("unreachable", "The answer is lost.")


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now

    def monotonic(self) -> float:
        return self._world.now


def state_of_each_stage() -> dict[Stage, AgentState]:
    """A state of each stage of model digits, as a real update passes through it."""
    found: dict[Stage, AgentState] = {}

    def core(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
        new, effects = step(state, event, now)
        mine = new.models.get("digits", ModelState())
        if mine.active or mine.stage is Stage.IDLE:
            found.setdefault(mine.stage, new)
        return new, effects

    world = World(core=core)
    world.offer("1")
    world.boot()
    world.start()
    for release in ("1", "2", "sick"):
        world.shadow = SHADOW if release == "sick" else None
        world.offer(release)
        world.run_until_told(release)
    world.shadow = None
    world.storage.capacity_bytes = sum(map(len, world.storage.files.values())) + 100_000
    world.offer("1", rollout="ro-full-disk")
    world.run(lambda world: world.stage is Stage.QUEUED)
    world.storage.capacity_bytes = 1 << 40
    world.hub.offer = None
    world.hub.refuses_starts = 1 << 30
    world.offer("1", model="detector")
    world.run(lambda world: "detector" in world.asking())
    world.offer("1", rollout="ro-second")
    world.run(lambda world: "digits" in world.asking())
    world.hub.refuses_starts = 0
    world.run(lambda _: Stage.STAGED in found)
    assert set(found) == set(Stage), "an update passes through every stage"
    return found


def at_rest(world: World) -> bool:
    """Every offer has come to its end, and the hub knows it."""
    return (
        all(mine.stage is Stage.IDLE for mine in world.state.models.values())
        and not world.state.spool
        and world.state.soft.sent is None
        and world.state.soft.switch is None
        and not world.hub.pending()
        and all(world.hub.runs(model) == world.running(model) for model in world.state.models)
    )


def fork(world: World) -> World:
    """A copy of the world, with its own disk and hub."""
    other = copy.copy(world)
    other.storage = copy.copy(world.storage)
    other.storage.files = dict(world.storage.files)
    other.storage.operations = []
    other.hub = copy.copy(world.hub)
    other.hub.outcomes = dict(world.hub.outcomes)
    other.hub.check_ins = list(world.hub.check_ins)
    other.hub.offers = dict(world.hub.offers)
    other.hub.reports = dict(world.hub.reports)
    other.proved = set(world.proved)
    other.confirmed = set(world.confirmed)
    other.activations = []
    other.shadows = []
    other.events = copy.copy(world.events)
    return other
