"""The agent's loop: get an event, run a step, save the state, execute the effects.

Four worker threads do the long work: ``fetch`` downloads, ``prove`` proves, ``serving`` controls
the serving process, ``link`` checks in. Each returns its result as an event. Only the loop uses the
state.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol, assert_never

import msgspec

from edgefleet.agent import limits
from edgefleet.agent.agent_status import AgentStatus
from edgefleet.agent.board import BoardSensors
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
)
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    DiskChecked,
    Event,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    StagingFailed,
    TimerFired,
    TruthGiven,
)
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.journal import Journal
from edgefleet.agent.log import LOGGER
from edgefleet.agent.lost_state import Open
from edgefleet.agent.narration import narrate
from edgefleet.agent.prover import Prover
from edgefleet.agent.slots import Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.step import step
from edgefleet.agent.stored import to_store
from edgefleet.agent.supervisor import Supervisor
from edgefleet.agent.systemd import Notifier
from edgefleet.agent.transfer import DamagedTransferError
from edgefleet.agent.worker import Stopped, Token, Worker
from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError
from edgefleet.protocol.device import CheckIn, Facts, Reason


class CheckIns(Protocol):
    """The connection to the hub."""

    def check_in(self, check_in: CheckIn) -> CheckInAnswered | CheckInFailed: ...


class Stop:
    """A request to end the loop."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for the status, which the loop answers: so the answer shows that the loop runs."""

    answer: SimpleQueue[AgentStatus]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a loop."""

    slots: Slots
    hub: CheckIns
    fetcher: Fetcher
    prover: Prover
    make_supervisor: Callable[[Callable[[], None]], Supervisor]
    open_envelope: Open
    clock: Clock
    entropy: Entropy
    sensors: BoardSensors
    describe: Callable[[AgentState, float], AgentStatus]
    notifier: Notifier
    is_enrolled: bool = True


class Loop:
    """The loop of one device. ``run`` returns after ``stop`` and may be called once."""

    def __init__(self, parts: Parts, state: AgentState, facts: Facts) -> None:
        self._slots = parts.slots
        self._hub = parts.hub
        self._fetcher = parts.fetcher
        self._prover = parts.prover
        self._open_envelope = parts.open_envelope
        self._clock = parts.clock
        self._entropy = parts.entropy
        self._sensors = parts.sensors
        self._describe = parts.describe
        self._notifier = parts.notifier
        self._is_enrolled = parts.is_enrolled
        self._state = state
        self._facts = facts
        # Setting the clock must not change durations: wall time once, then monotonic time.
        self._epoch = parts.clock.now() - parts.clock.monotonic()
        self._wake_at = 0.0
        self._tokens: dict[str, Token] = {}  # of the last work of each model
        self._arrived: SimpleQueue[Event | Stop | Asked | BaseException] = SimpleQueue()
        self._fetches = Worker("fetch", self._arrived.put)
        self._proofs = Worker("prove", self._arrived.put)
        self._serving = Worker("serving", self._arrived.put)
        self._link = Worker("link", self._arrived.put)
        self._supervisor = parts.make_supervisor(self._serving_ended)
        self._journal = Journal(parts.slots, parts.clock.monotonic)

    def stop(self) -> None:
        """Make ``run`` return. Safe in a signal handler."""
        self._arrived.put(Stop())

    def status(self) -> AgentStatus | None:
        """The status, for another thread. None if the loop does not answer within STATUS_S."""
        answer: SimpleQueue[AgentStatus] = SimpleQueue()
        self._arrived.put(Asked(answer))
        try:
            return answer.get(timeout=limits.STATUS_S)
        except Empty:
            return None

    def run(self, *, keep_serving: bool) -> None:
        """Run until ``stop``. Then stops the serving process, unless ``keep_serving``."""
        self._boot()
        while not isinstance(event := self._next(), Stop):
            self._apply(event)
        for token in self._tokens.values():
            token.stop()
        self._fetches.close(limits.CLOSE_S)
        self._proofs.close(limits.CLOSE_S)
        if not keep_serving:
            self._serving.do(self._supervisor.stop)
        self._serving.close(limits.SERVING_STOP_S + limits.CLOSE_S)
        if not keep_serving:
            self._supervisor.kill()  # if it was not stopped in time

    def _boot(self) -> None:
        self._slots.repair_pointer()
        status, _ = self._supervisor.status()
        self._apply(
            Booted(
                facts=self._facts,
                whole=self._slots.whole(self._state),
                pointer=self._slots.pointer(),
                serving=status,
                draw=self._entropy.uniform() if self._is_enrolled else 0.0,  # a person waits
                disk_fault=self._journal.check(),
                disk_detail=self._journal.detail,
            )
        )

    def _now(self) -> float:
        return self._epoch + self._clock.monotonic()

    def _next(self) -> Event | Stop:
        if self._notifier.is_listening:
            self._notifier.status(self._describe(self._state, self._now()).line)
        while True:
            self._notifier.alive()
            wait_s = max(0.0, self._wake_at - self._now())
            beat_s = self._notifier.beat_s
            try:
                event = self._arrived.get(timeout=wait_s if beat_s is None else min(wait_s, beat_s))
            except Empty:
                if self._now() >= self._wake_at:
                    return TimerFired(draw=self._entropy.uniform())
                continue
            if isinstance(event, Asked):
                event.answer.put(self._describe(self._state, self._now()))
                continue
            if isinstance(event, BaseException):
                raise event
            return event

    def _apply(self, event: Event) -> None:
        """Run a step, store the state, execute the effects.

        The core decides with the fault of the disk in view. If the fault changes while the state of
        a step is stored, the core hears of that first, and the step is run again.
        """
        before, known = self._state, self._state.soft.disk_fault
        if isinstance(event, Booted):
            known = event.disk_fault
        after, effects = step(before, event, self._now())
        fault = self._journal.store(to_store(after))
        if fault != known and isinstance(event, Booted):
            detail = self._journal.detail
            self._apply(msgspec.structs.replace(event, disk_fault=fault, disk_detail=detail))
            return
        if fault != known and not isinstance(event, DiskChecked):
            self._apply(DiskChecked(fault=fault, detail=self._journal.detail))
            before = self._state
            after, effects = step(before, event, self._now())
            self._journal.store(to_store(after))
        self._state = after
        for level, text in narrate(before, event, after, self._now()):
            LOGGER.log(level, text)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case SendCheckIn():
                check_in = effect.check_in
                outcomes = self._journal.outcomes_to_send(check_in.outcomes)
                if outcomes != check_in.outcomes:
                    check_in = msgspec.structs.replace(check_in, outcomes=outcomes)
                self._link.do(lambda: self._arrived.put(self._hub.check_in(check_in)))
            case FetchManifest() | Fetch() | Prove():
                token = self._tokens[effect.model] = Token()
                worker = self._proofs if isinstance(effect, Prove) else self._fetches
                worker.do(lambda: self._work_on(effect, token))
            case CancelStaging():
                if effect.model in self._tokens:
                    self._tokens[effect.model].stop()
            case Apply():
                self._serving.do(lambda: self._serve(effect))
            case StopServing():
                self._serving.do(self._supervisor.stop)
                self._serving.do(self._probe)
            case Probe():
                self._serving.do(self._probe)
            case MovePointer():
                self._journal.move_pointer(effect.slots)
            case RemoveSlot():
                with contextlib.suppress(DeviceError):  # the next download makes way for itself
                    self._slots.remove(effect.model, effect.slot)
                self._slots.make_reserve()
            case GiveTruth():
                self._serving.do(lambda: self._give_truth(effect))
            case SetTimer():
                self._wake_at = min(effect.at, self._now() + self._journal.wait_s())
            case _:
                assert_never(effect)

    def _work_on(self, effect: FetchManifest | Fetch | Prove, token: Token) -> None:
        try:
            event = self._worked(effect, token)
        except Stopped:
            return
        except EdgefleetError as error:
            damaged = error if isinstance(error, DamagedTransferError) else None
            event = StagingFailed(
                model=effect.model,
                job=effect.job,
                code=error.code,
                detail=error.message,
                draw=self._entropy.uniform(),
                expected=damaged.expected if damaged else "",
                found=damaged.found if damaged else "",
                refusal=damaged.refusal if damaged else "",
            )
        self._arrived.put(event)

    def _worked(self, effect: FetchManifest | Fetch | Prove, token: Token) -> Event:
        token.check()
        match effect:
            case FetchManifest():
                digest, manifest = self._fetcher.manifest(
                    effect.model, effect.slot, effect.sha256, self._open_envelope
                )
                free_bytes, slot_bytes = self._fetcher.space(effect.model, effect.slot)
                return ManifestOpened(
                    model=effect.model,
                    job=effect.job,
                    sha256=digest,
                    manifest=manifest,
                    free_bytes=free_bytes,
                    slot_bytes=slot_bytes,
                )
            case Fetch():
                self._fetcher.file(effect.model, effect.slot, effect.file, effect.artifact, token)
                return Fetched(model=effect.model, job=effect.job)
            case Prove():
                result = self._prover.prove(effect.slot, effect.installed, token)
                return Proved(model=effect.model, job=effect.job, result=result)
            case _:
                assert_never(effect)

    def _serve(self, effect: Apply) -> None:
        event: Event
        try:
            status = self._supervisor.apply(effect)
            ends, ran = self._supervisor.ends(), self._supervisor.ran()
            hung = self._supervisor.hung()
            event = Activated(job=effect.job, status=status, ran=ran, hung=hung, ends=ends)
        except EdgefleetError as error:
            event = ActivationFailed(
                job=effect.job,
                model=error.field or "",
                # Without an answer: a model crashed the process, or held it up until it was ended.
                reason=Reason.CRASH if isinstance(error, NetworkError) else Reason.LOAD,
                detail=str(error),
                draw=self._entropy.uniform(),
                ran=self._supervisor.ran(),
                hung=self._supervisor.hung(),
                ends=self._supervisor.ends(),
            )
        self._arrived.put(event)

    def _probe(self) -> None:
        status, alive = self._supervisor.status()
        self._arrived.put(
            ServingProbed(
                status=status,
                alive=alive,
                ran=self._supervisor.ran(),
                hung=self._supervisor.hung(),
                ends=self._supervisor.ends(),
                draw=self._entropy.uniform(),
                board=self._sensors.read(),
            )
        )

    def _give_truth(self, effect: GiveTruth) -> None:
        """Without an answer the hub sends the labels again."""
        try:
            self._supervisor.give_truth(effect)
        except EdgefleetError as error:
            LOGGER.warning("labels: %s", error)
        else:
            self._arrived.put(TruthGiven(number=max(one.number for one in effect.truth)))

    def _serving_ended(self) -> None:
        """Called when the process or a worker ended by itself: probe it now."""
        self._serving.do(self._probe)
