"""One simulated device: the real agent core, with a virtual disk and network for its effects."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, assert_never

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.effect import Effect
from edgefleet.agent.event import Event
from edgefleet.agent.limits import INTERVAL_S
from edgefleet.agent.slots import GOLDEN, MODEL, folder, path, pointer_text, read_pointer
from edgefleet.agent.state import (
    AgentState,
    InstalledRelease,
    Pace,
    Slot,
    SlotName,
    slot,
)
from edgefleet.agent.step import step
from edgefleet.agent.stored import from_store, to_store
from edgefleet.agent.table import PHASES, Stage
from edgefleet.protocol.device import CheckInAnswer, Facts, Phase, Reason
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublicKey
from edgefleet.sim.limits import ANSWER_TIMEOUT_S
from edgefleet.sim.load.disk import Shelf, VirtualDisk
from edgefleet.sim.load.draws import Draws
from edgefleet.sim.load.event_loop import Appointment, EventLoop, Scope
from edgefleet.sim.load.fetch import Fetched, Fetching
from edgefleet.sim.load.hub_api import Failed, HubApi
from edgefleet.sim.load.link import LinkFacts, VirtualLink
from edgefleet.sim.load.serving_process import Laboratory, ModelBehaviour, Served, VirtualServing

_STATE: Final = "state.json"
_POINTER: Final = "current"
_NAMES: Final[tuple[SlotName, ...]] = ("a", "b")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The properties of a simulated device. ``requests_s`` is its inference requests per second."""

    name: str
    facts: Facts
    labels: dict[str, str] = field(default_factory=dict[str, str])
    link: LinkFacts = field(default_factory=LinkFacts)
    disk_bytes: int = 64 << 20
    requests_s: float = 5.0
    pace: Pace = field(default_factory=Pace)
    answer_timeout_s: float = ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects that all devices of a simulation share. ``trusted`` are the publisher keys."""

    world: EventLoop
    hub: HubApi
    shelf: Shelf
    laboratory: Laboratory
    trusted: dict[str, PublicKey]
    seed: int


class SimDevice:
    """A device, off until ``boot``. ``ran`` has the releases it has served, in order, by model."""

    def __init__(
        self,
        facts: DeviceFacts,
        token: str,
        around: Surroundings,
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.facts = facts
        self.ran: dict[str, tuple[str, ...]] = {}
        self.state = self._new = AgentState(interval_s=interval_s)
        self.disk = VirtualDisk(around.shelf, facts.disk_bytes)
        self.link = VirtualLink(facts.link, Draws(around.seed, f"link/{facts.name}"))
        self._around = around
        self._world = around.world
        self._token = token
        self._draws = Draws(around.seed, f"agent/{facts.name}")
        self._serving = VirtualServing(facts.requests_s, Draws(around.seed, f"use/{facts.name}"))
        self._stored = b""
        self._on = Scope(self._world)  # ends when the power is cut
        self._work: dict[str, Scope] = {}  # by model: ends with its manifest, fetch or proof
        self._switch = Scope(self._world)  # ends with the current Apply
        self._came: dict[str, int] = {}
        self._timer: Appointment | None = None
        self._awaited: tuple[int, Appointment] | None = None

    @property
    def releases(self) -> dict[str, str]:
        """The release of each model that its serving process serves, in trial or confirmed."""
        return self._serving.releases

    @property
    def phase(self) -> Phase:
        stages = (one.stage for one in self.state.models.values())
        return PHASES[next((stage for stage in stages if stage is not Stage.IDLE), Stage.IDLE)]

    def boot(self) -> None:
        """Start the agent from the files on the disk, as after an installation or a power cut."""
        self.power_off()
        self._on = Scope(self._world)
        self._stored = self.disk.read(_STATE) or b""
        self.state = from_store(self._stored) if self._stored else self._new
        self._happen(
            happened.Booted(
                facts=self.facts.facts,
                whole={
                    model: tuple(name for name in _NAMES if self._whole(slot(mine, name), name))
                    for model, mine in self.state.models.items()
                },
                pointer=read_pointer(self.disk.read(_POINTER) or b""),
                serving=None,
                draw=self._draws.uniform(),
                pace=self.facts.pace,
            )
        )

    def power_off(self) -> None:
        """Stop everything at once. The files on the disk remain."""
        for scope in (self._on, self._switch, *self._work.values()):
            scope.end()
        self._came.clear()
        self._serving.stop()
        self._timer = self._awaited = None

    def _happen(self, event: Event) -> None:
        """Step the core, store its state, then execute its effects, in the real agent's order."""
        self.state, effects = step(self.state, event, self._world.now())
        data = to_store(self.state)
        if data != self._stored:
            self.disk.write(_STATE, data)
            self._stored = data
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        """Start an effect. Its result is always a later event, never part of the current one."""
        match effect:
            case do.SendCheckIn():
                self._send(effect)
            case do.FetchManifest():
                fetching = self._fetching(effect)
                fetching.manifest(effect, self._around.hub, self._token, self._around.trusted)
            case do.Fetch():
                self._fetching(effect).file(effect, self._around.hub, self._token)
            case do.Prove():
                proved = partial(self._prove, effect)
                self._study(self._new_work(effect.model), effect.slot, effect.installed, proved)
            case do.CancelStaging():
                self._new_work(effect.model)
            case do.Apply():
                self._switch.end()
                self._switch = Scope(self._world)
                self._apply(effect, ())
            case do.StopServing():
                self._switch.end()
                self._serving.stop()
                self._on.after(0.0, self._probe)
            case do.Probe():
                self._on.after(0.0, self._probe)
            case do.MovePointer():
                self.disk.write(_POINTER, pointer_text(effect.slots))
            case do.RemoveSlot():
                self.disk.remove(folder(effect.model, effect.slot))
            case do.GiveTruth():
                pass  # its facts say that it takes no labels, so the hub has none for it
            case do.SetTimer():
                if self._timer:
                    self._timer.cancel()
                self._timer = self._on.at(effect.at, self._wake)
            case _:
                assert_never(effect)

    def _wake(self) -> None:
        self._timer = None
        self._happen(happened.TimerFired(draw=self._draws.uniform()))

    # Check-ins.

    def _send(self, effect: do.SendCheckIn) -> None:
        check_in, now = effect.check_in, self._world.now()
        if self.link.up(now):
            missing, after_s = Failed("timeout", "No answer arrived."), self.facts.answer_timeout_s
        else:
            missing, after_s = Failed("unreachable", "The link is down."), 0.0
        due = self._on.after(after_s, partial(self._received, check_in.seq, missing))
        self._awaited = (check_in.seq, due)
        done = self._on.guarded(partial(self._answered, check_in.seq))
        for at in self.link.arrivals(now, len(encode(check_in))):
            # A message that was sent arrives even if the device loses power afterwards.
            self._world.at(at, partial(self._around.hub.check_in, self._token, check_in, done))

    def _answered(self, seq: int, answer: CheckInAnswer | Failed) -> None:
        """The hub has answered: send the answer over the link to the device."""
        size_bytes = 0 if isinstance(answer, Failed) else len(encode(answer))
        for at in self.link.arrivals(self._world.now(), size_bytes):
            self._on.at(at, partial(self._received, seq, answer))

    def _received(self, seq: int, answer: CheckInAnswer | Failed) -> None:
        """Handle the first answer to the awaited check-in. Drop duplicates and late answers."""
        if self._awaited is None or self._awaited[0] != seq:
            return
        self._awaited[1].cancel()
        self._awaited = None
        draw = self._draws.uniform()
        if isinstance(answer, Failed):
            self._happen(
                happened.CheckInFailed(
                    seq=seq, code=answer.code, draw=draw, next_seq=answer.next_seq
                )
            )
        else:
            self._happen(happened.CheckInAnswered(seq=seq, answer=answer, draw=draw))

    # Work on a model: the manifest, the files, the proof. One at a time for each model.

    def _new_work(self, model: str) -> Scope:
        """End the work on the model. Returns the scope of the next."""
        if model in self._work:
            self._work[model].end()
        self._work[model] = scope = Scope(self._world)
        return scope

    def _fetching(self, effect: do.FetchManifest | do.Fetch) -> Fetching:
        return Fetching(
            self._world,
            self._new_work(effect.model),
            link=self.link,
            disk=self.disk,
            shelf=self._around.shelf,
            came=self._came,
            done=partial(self._worked, effect.model, effect.job),
        )

    def _worked(self, model: str, job: int, result: Fetched | Failed) -> None:
        if isinstance(result, Failed):
            draw = self._draws.uniform()
            code, detail = result.code, result.detail
            self._happen(
                happened.StagingFailed(model=model, job=job, code=code, detail=detail, draw=draw)
            )
        else:
            self._happen(result)

    def _study(
        self,
        scope: Scope,
        name: SlotName,
        installed: InstalledRelease,
        done: Callable[[ModelBehaviour | Failed], None],
    ) -> None:
        """Get the behaviour of the release. ``done`` gets ``Failed`` if a file is missing."""
        model = self.disk.read(path(installed.model, name, MODEL))
        golden = self.disk.read(path(installed.model, name, GOLDEN))
        if model is None or golden is None:
            done(Failed("golden_refused", "A file of the slot is missing."))
        else:
            self._around.laboratory.study(installed, model, golden, scope.guarded(done))

    def _prove(self, effect: do.Prove, behaviour: ModelBehaviour | Failed) -> None:
        work = self._work[effect.model]
        if isinstance(behaviour, Failed):
            work.after(0.0, partial(self._worked, effect.model, effect.job, behaviour))
            return
        proof = behaviour.proof
        took_s = proof.load_ms / 1e3 + proof.cases * proof.latency_us_p50 / 1e6
        proved = happened.Proved(model=effect.model, job=effect.job, result=proof)
        work.after(took_s, partial(self._happen, proved))

    # Switches of the serving process.

    def _apply(self, effect: do.Apply, studied: tuple[Served, ...]) -> None:
        """Study the next model of the wanted set. With all ``studied``, load them and switch."""
        if len(studied) < len(effect.models):
            wanted = do.routed(effect.models[len(studied)])
            done = partial(self._studied, effect, studied)
            self._study(self._switch, wanted.slot, wanted.installed, done)
            return
        swapped = [one for one in studied if not self._serving.serves(one.installed)]
        load_s = sum(one.behaviour.proof.load_ms for one in swapped) / 1e3
        self._switch.after(load_s, partial(self._swap, effect, studied))

    def _studied(
        self, effect: do.Apply, studied: tuple[Served, ...], behaviour: ModelBehaviour | Failed
    ) -> None:
        wanted = effect.models[len(studied)]
        if isinstance(behaviour, Failed):
            failed = happened.ActivationFailed(
                job=effect.job,
                reason=Reason.LOAD,
                detail=behaviour.detail,
                draw=self._draws.uniform(),
                model=wanted.model,
            )
            self._switch.after(0.0, partial(self._happen, failed))
            return
        installed, on_trial = do.routed(wanted).installed, wanted.trial is not None
        self._apply(effect, (*studied, Served(installed, behaviour, on_trial)))

    def _swap(self, effect: do.Apply, studied: tuple[Served, ...]) -> None:
        now = self._world.now()
        self._serving.apply(now, effect.generation, studied)
        for model, release in self._serving.releases.items():
            ran = self.ran.get(model, ())
            if release not in ran:
                self.ran[model] = (*ran, release)
        status = self._serving.status(now)
        assert status is not None, "an Apply has a model"  # noqa: S101 - a defect, not input
        self._happen(happened.Activated(job=effect.job, status=status))

    def _probe(self) -> None:
        status = self._serving.status(self._world.now())
        draw = self._draws.uniform()
        self._happen(happened.ServingProbed(status=status, alive=status is not None, draw=draw))

    def _whole(self, mine: Slot, name: SlotName) -> bool:
        installed = mine.installed
        return installed is not None and all(
            self.disk.digest(path(installed.model, name, file)) == artifact.sha256
            for file, artifact in (
                (MODEL, installed.variant.artifact),
                (GOLDEN, installed.golden.artifact),
            )
        )
