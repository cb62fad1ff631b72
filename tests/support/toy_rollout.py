"""A shell around the engine in a hundred lines: toy devices, virtual time, a store that survives.

It drives ``Engine`` exactly as the hub does, checks at every tick what must always hold, and knows
by itself what each device did, so that the engine's counts can be held against the truth.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from msgspec.structs import replace

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.device import CheckIn, Offer, Outcome, OutcomeKind, Phase, Telemetry
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import (
    ExposureSpec,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.testing.release import fake_manifest

MODEL = "digits"
START = 1_700_000_000.0
GATE = GateSpec(
    min_sample=5, soak_s=2, confirm_after_s=1, silence_s=8, patience_s=20, min_requests=10
)


class Behaviour(Enum):
    """The behaviour of a device with a release."""

    GOOD = "good"
    FAILS_TRIAL = "fails its trial and goes back"
    REFUSES = "refuses it"
    GOES_SILENT = "is never heard again after activating"
    DEFERS = "puts it off for ever"


class BrokenError(AssertionError):
    """Something that must always hold does not."""


@dataclass
class ToyDevice:
    """One agent: its release, its attempt, and its outcomes that are not acknowledged yet."""

    name: str
    row: int
    slow_s: float = 0.0
    away: Callable[[float], bool] = field(default=lambda _now: False)
    running: str | None = None
    before: str | None = None  # the release in the other slot
    trial: tuple[Offer, float] | None = None
    begun: tuple[Offer, float] | None = None
    staged: Offer | None = None  # the device waits for admission
    brick: bool = False
    protocol: int = PROTOCOL
    deaf: bool = False  # answers to the device are lost
    heard: float = START
    seq: int = 0
    spool: list[Outcome] = field(default_factory=list)

    @property
    def phase(self) -> Phase:
        if self.trial:
            return Phase.TRIAL
        if self.staged:
            return Phase.STAGED
        return Phase.FETCHING if self.begun else Phase.IDLE


def manifest(release: str, profiles: Iterable[str] = ("generic_x86",)) -> ReleaseManifest:
    """A manifest whose artifact and golden set have one byte each."""
    return fake_manifest(MODEL, release, profiles, now=START, artifact_bytes=1, golden_bytes=1)


EVERYBODY = ExposureSpec(first=1_000_000)


def spec(
    release: str,
    *percents: float,
    selector: str = "",
    gate: GateSpec = GATE,
    exposure: ExposureSpec = EVERYBODY,
) -> RolloutSpec:
    """A plan in which a whole wave may begin at once, unless ``exposure`` says otherwise."""
    waves = tuple(WaveSpec(percent=percent) for percent in percents or (1, 10, 100))
    return RolloutSpec(
        model=MODEL, release=release, selector=selector, waves=waves, gate=gate, exposure=exposure
    )


def outcome(
    rollout: str, release: str, kind: OutcomeKind, *, reason: str = "", at: float = START
) -> Outcome:
    return Outcome(
        id=f"{rollout}-{release}-{kind}", rollout=rollout, release=release, kind=kind,
        at=at, reason=reason,
    )  # fmt: skip


class ToyShell:
    """Engine, devices, a store, and the checks."""

    def __init__(self, devices: int, *, twice: bool = False) -> None:
        self.now = START
        self.twice = twice  # every outcome is reported twice
        self.devices: list[ToyDevice] = []
        self.behaviour: dict[str, Callable[[ToyDevice], Behaviour]] = {}
        self.stored_states: dict[str, bytes] = {}
        self.stored_outcomes: dict[tuple[int, str], Outcome] = {}  # by row and outcome id
        self.received: dict[tuple[int, str], float] = {}
        self.ended_badly: set[tuple[int, str]] = set()  # row and release
        self.were_silent: set[tuple[int, str]] = set()  # row and id of what it said at last
        self.enrolled: list[tuple[str, str, dict[str, str]]] = []
        self.audit: list[str] = []
        self.engine = self._new_engine()
        for number in range(devices):
            self.enrol(f"d{number:05d}", site=f"s{number % 3}")

    # The hub.

    def enrol(self, name: str, profile: str = "generic_x86", **labels: str) -> ToyDevice:
        self.enrolled.append((name, profile, labels))
        device = ToyDevice(name, self.engine.fleet.add(name, profile, labels))
        self.devices.append(device)
        return device

    def publish(
        self,
        release: str,
        behaviour: Behaviour | Callable[[ToyDevice], Behaviour] = Behaviour.GOOD,
    ) -> None:
        self.behaviour[release] = (
            (lambda _device: behaviour) if isinstance(behaviour, Behaviour) else behaviour
        )
        self.engine.add_release(manifest(release), release * 64)

    def plan(self, wanted: RolloutSpec, *, salt: int | None = None) -> str:
        rollout = f"ro-{len(self.stored_states) + 1}"
        salt = mix64(len(self.stored_states) + 1) if salt is None else salt
        state = self.engine.plan(wanted, rollout_id=rollout, salt=salt, now=self.now)
        self.stored_states[rollout] = encode(state)
        self.engine.load(state)
        return rollout

    def start(self, wanted: RolloutSpec, *, salt: int | None = None) -> str:
        rollout = self.plan(wanted, salt=salt)
        self.command(rollout, Verb.START)
        return rollout

    def command(self, rollout: str, verb: Verb, generation: int | None = None) -> None:
        self.commit(self.engine.command(rollout, verb, now=self.now, generation=generation))

    def restart(self, *, reverse: bool = False) -> None:
        """Lose all that was not stored, as a killed hub does, and start again."""
        self.engine = self._new_engine()
        for name, profile, labels in self.enrolled:
            self.engine.fleet.add(name, profile, labels)
        for release in self.behaviour:
            self.engine.add_release(manifest(release), release * 64)
        states = list(self.stored_states.values())
        outcomes = list(self.stored_outcomes.items())
        for state in reversed(states) if reverse else states:
            self.engine.load(decode(state, RolloutState))
        for key, said in reversed(outcomes) if reverse else outcomes:
            self.engine.record(key[0], said, self.received[key])

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        for device in self.devices:
            if not device.brick and not device.away(self.now):
                self.check_in(device)
        self.evaluate()

    def evaluate(self) -> None:
        for rollout in self.engine.open_rollouts():
            change = self.engine.evaluate(rollout, self.now)
            if change is not None:
                self.commit(change)
        self.check()

    def run(self, rollout: str, *, at_most_s: int = 300) -> RolloutView:
        """Tick until the rollout has ended."""
        for _ in range(at_most_s):
            if rollout not in self.engine.open_rollouts():
                return self.view(rollout)
            self.tick()
        raise BrokenError(f"unfinished: {self.engine.why_rollout(rollout, self.now)}")

    def settle(self, rollout: str, seconds: int) -> RolloutView:
        """Tick for so long, ended or not."""
        for _ in range(seconds):
            self.tick()
        return self.view(rollout)

    def view(self, rollout: str) -> RolloutView:
        return self.engine.view(rollout, self.now)

    def on_release(self, release: str) -> int:
        return sum(device.running == release for device in self.devices)

    def telemetry(self, row: int, release: str, confidence: float, requests: int = 20) -> None:
        said = Telemetry(
            release=release, requests=requests, errors=0, confidence_sum=confidence * requests,
            confidence_count=requests, latency_us_p50=100, latency_us_p95=200 + row, memory_mib=10,
        )  # fmt: skip
        self.engine.telemetry(row, said, self.now)

    # The device.

    def check_in(self, device: ToyDevice) -> None:
        self._live(device)
        silent_s, device.heard = self.now - device.heard, self.now
        if silent_s > GATE.silence_s:
            self.were_silent.update((device.row, said.id) for said in device.spool)
        answered = self.exchange(device, *device.spool)
        for said in device.spool:
            if said.kind is OutcomeKind.TRIAL_STARTED and said.id not in answered.acked:
                raise BrokenError(f"{device.name} runs it, and is refused")
        device.spool.clear()
        if not device.deaf:
            self._obey(device, answered.offer)

    def exchange(
        self, device: ToyDevice, *outcomes: Outcome, running: str | None = None, **changes: object
    ) -> checkin.Answered:
        """One check-in, in the order of the engine, as the device is or with ``changes``."""
        device.seq += 1
        running = running or device.running
        said = CheckIn(
            protocol=device.protocol, seq=device.seq, phase=device.phase, outcomes=outcomes,
            model=MODEL if running else None, release=running,
        )  # fmt: skip
        said = replace(said, **changes)
        step = checkin.begin(self.engine, device.row, said, self.now)
        while isinstance(step, checkin.Pending):
            fresh = [one for one in step.to_store if self._keep(device.row, one, step.at)]
            # Those that are reported twice come twice, as from a store that forgets.
            again = step.to_store if self.twice else ()
            step = checkin.finish(self.engine, step, (*fresh, *again), self.now)
        assert isinstance(step, checkin.Answered)
        return step

    def _live(self, device: ToyDevice) -> None:
        if device.trial is None or self.now < device.trial[1]:
            return
        offer, device.trial = device.trial[0], None
        behaves = self.behaviour[offer.release](device)
        if behaves is Behaviour.FAILS_TRIAL:
            device.running = device.before
            self._say(device, offer, OutcomeKind.TRIAL_FAILED, reason="inference_errors")
        else:
            self._say(device, offer, OutcomeKind.CONFIRMED)

    def _obey(self, device: ToyDevice, offer: Offer | None) -> None:
        if device.trial is not None:
            return
        if offer is None:
            device.begun = device.staged = None
            return
        self._check_offer(device, offer)
        if device.begun is None or device.begun[0] != offer:
            device.begun = (offer, self.now + device.slow_s)
        self._go_on(device, offer)

    def _go_on(self, device: ToyDevice, offer: Offer) -> None:
        if device.begun is None or self.now < device.begun[1]:
            return
        device.begun = None
        if offer.action == "revert":
            device.running = offer.release
            self._say(device, offer, OutcomeKind.REVERTED, reason="recalled")
        else:
            self._try(device, offer)

    def _try(self, device: ToyDevice, offer: Offer) -> None:
        match self.behaviour[offer.release](device):
            case Behaviour.REFUSES:
                self._say(device, offer, OutcomeKind.REFUSED, reason="golden_failed")
            case Behaviour.DEFERS:
                self._say(device, offer, OutcomeKind.DEFERRED)
            case behaves:
                start = self._outcome(device, offer, OutcomeKind.TRIAL_STARTED)
                device.staged = offer
                answered = self.exchange(device, *device.spool, start)
                device.spool.clear()
                if start.id in answered.acked:
                    device.staged = None
                    self._start(device, offer, behaves)

    def _start(self, device: ToyDevice, offer: Offer, behaves: Behaviour) -> None:
        device.before, device.running = device.running, offer.release
        device.trial = (offer, self.now + offer.confirm_after_s)
        device.brick = behaves is Behaviour.GOES_SILENT

    def _say(self, device: ToyDevice, offer: Offer, kind: OutcomeKind, reason: str = "") -> None:
        device.spool.append(self._outcome(device, offer, kind, reason))

    def _outcome(
        self, device: ToyDevice, offer: Offer, kind: OutcomeKind, reason: str = ""
    ) -> Outcome:
        return Outcome(
            id=f"{device.name}-{offer.rollout}-{kind}", rollout=offer.rollout,
            release=offer.release, kind=kind, at=self.now, reason=reason,
        )  # fmt: skip

    # Invariants.

    def check(self) -> None:
        for state in self.engine.states():
            view = self.view(state.id)
            self._check_cuts(state, view)
            self.check_counts(state, view)
            self._check_soak(view)
            if state.id in self.engine.open_rollouts() and not view.why.waits:
                raise BrokenError(f"{state.id} is open and waits for nothing")
            if state.status is Status.REVERTED:
                self._check_reverted(state)

    def _check_cuts(self, state: RolloutState, view: RolloutView) -> None:
        exposed = self.rows_that(state.id, _EXPOSING)
        if any(wave.selector or wave.count for wave in state.waves):
            return  # waves of other kinds have tests of their own
        for wave in state.waves:
            if wave.cut is None or wave.population is None or wave.threshold is None:
                continue
            if wave.cut != math.ceil(round((wave.percent or 0) * wave.population / 100, 9)):
                raise BrokenError(f"{wave.cut} is not {wave.percent} % of {wave.population}")
        wave = state.open_wave
        if wave is None or wave.threshold is None:
            return
        threshold = int(wave.threshold, 16)
        # The wave of everyone, and a completed rollout, take those who enrol later.
        grows = threshold == 1 << 64 or state.status is Status.COMPLETED
        bound = len(self.devices) if grows else wave.cut or 0
        if len(exposed) > bound or view.exposed != len(exposed):
            raise BrokenError(f"{len(exposed)} exposed, {view.exposed} counted, cut {wave.cut}")
        for row in exposed:
            position = mix64(device_hash(self.devices[row].name) ^ state.salt)
            if position >= threshold:
                raise BrokenError(f"row {row} lies beyond the cut")

    def check_counts(self, state: RolloutState, view: RolloutView) -> None:
        failed = self.rows_that(state.id, {OutcomeKind.TRIAL_FAILED})
        reverted = self.rows_that(state.id, {OutcomeKind.REVERTED}) - failed
        healthy = self.rows_that(state.id, {OutcomeKind.CONFIRMED}) - failed - reverted
        seen = view.evidence
        if (seen.healthy, seen.failed - seen.silent, seen.reverted) != (
            len(healthy), len(failed), len(reverted),
        ):  # fmt: skip
            raise BrokenError(f"{seen} against {len(healthy)}, {len(failed)}, {len(reverted)}")
        accounts = (
            seen.offered + seen.in_trial + seen.healthy + seen.failed + seen.refused
            + seen.reverted + seen.offline + seen.deferred + seen.not_begun
        )  # fmt: skip
        if state.wave is not None and accounts != seen.cut:
            raise BrokenError(f"{accounts} devices in the accounts of {seen.cut}")

    def _check_soak(self, view: RolloutView) -> None:
        for wave in view.waves:
            judged = wave.judgement
            if wave.closed_at is None or judged is None or judged.reason != "passed":
                continue
            # A silent device that confirms later improves the evidence: the soak continues.
            said = [
                said.at
                for key, said in self.stored_outcomes.items()
                if said.rollout == view.id and said.at <= wave.closed_at
                and said.kind is OutcomeKind.CONFIRMED and said.at >= (wave.opened_at or 0)
                and key not in self.were_silent
            ]  # fmt: skip
            if said and wave.closed_at - max(said) < view.gate.soak_s:
                raise BrokenError(f"closed {wave.closed_at - max(said)} s after the last report")

    def _check_reverted(self, state: RolloutState) -> None:
        if state.previous is None:
            return
        for row in self.rows_that(state.id, _EXPOSING):
            device = self.devices[row]
            online = not device.brick and not device.away(self.now)
            if online and device.running == state.spec.release:
                raise BrokenError(f"{device.name} still runs {state.spec.release}")

    def _check_offer(self, device: ToyDevice, offer: Offer) -> None:
        if offer.action == "install" and (device.row, offer.release) in self.ended_badly:
            raise BrokenError(f"{device.name} is offered {offer.release} again")

    # Inside.

    def rows_that(self, rollout: str, kinds: Iterable[OutcomeKind]) -> set[int]:
        wanted = set(kinds)
        return {
            row
            for (row, _), said in self.stored_outcomes.items()
            if said.rollout == rollout and said.kind in wanted
        }

    def store(self, row: int, said: Outcome) -> None:
        self._keep(row, said, said.at)
        self.engine.record(row, said, said.at)

    def _keep(self, row: int, said: Outcome, at: float) -> bool:
        """Make an outcome durable. False if it was there."""
        if (row, said.id) in self.stored_outcomes:
            return False
        self.stored_outcomes[row, said.id] = said
        self.received[row, said.id] = at
        if said.kind in _ENDED_BADLY:
            release = decode(self.stored_states[said.rollout], RolloutState).spec.release
            self.ended_badly.add((row, release))
        return True

    def commit(self, change: Change) -> None:
        self.stored_states[change.state.id] = encode(change.state)
        self.audit += [f"{line.actor} {line.action}" for line in change.audit]
        self.engine.commit(change)

    def _new_engine(self) -> Engine:
        return Engine(now=self.now, offline_after_s=3)


_EXPOSING = frozenset(
    {
        OutcomeKind.TRIAL_STARTED,
        OutcomeKind.CONFIRMED,
        OutcomeKind.TRIAL_FAILED,
        OutcomeKind.REVERTED,
    }
)
_ENDED_BADLY = frozenset({OutcomeKind.TRIAL_FAILED, OutcomeKind.REFUSED, OutcomeKind.REVERTED})
