"""A fleet of toy devices under the real engine, in virtual time.

The fleet drives ``rollout.engine.Engine`` as the hub does: each change is stored as bytes before it
is committed, and ``restart`` loses everything else. A run is a function of its arguments, because
it uses no clock, no randomness and no thread.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from edgefleet.base.ids import device_hash, mix64
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.device import CheckIn, Outcome, OutcomeKind, Telemetry
from edgefleet.protocol.rollout import Freeze, GateSpec, RolloutSpec, RolloutView, Verb, WaveSpec
from edgefleet.protocol.version import OLDEST, PROTOCOL
from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.testing.behaviour import Behaviour, Fate
from edgefleet.testing.fake_device import FakeDevice
from edgefleet.testing.fake_telemetry import telemetry
from edgefleet.testing.limits import OUTCOMES_PER_CHECKIN, REQUESTS_PER_S
from edgefleet.testing.release import fake_manifest

MODEL: Final = "digits"
START: Final = 1_790_000_000.0  # 2026-09-21 13:33:20 UTC, a Monday
_WHOLE: Final = float(1 << 64)


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of the audit log."""

    at: float
    actor: str
    action: str
    about: str
    detail: str


class FakeFleet:
    """A fleet. ``interval_s`` is the time between check-ins, ``tick_s`` between evaluations."""

    def __init__(
        self,
        devices: int | Iterable[FakeDevice] = 0,
        *,
        gate: Gate = judge,
        model: str = MODEL,
        now: float = START,
        interval_s: float = 10.0,
        tick_s: float = 1.0,
    ) -> None:
        self.now = now
        self.model = model
        self.devices: dict[str, FakeDevice] = {}
        self.audit: list[Noted] = []
        self._gate = gate
        self._interval_s = interval_s
        self._tick_s = tick_s
        self._next_evaluation = now + tick_s
        self._behaviour: dict[str, Behaviour] = {}
        self._profiles: dict[str, tuple[str, ...]] = {}
        self._states: dict[str, bytes] = {}
        self._outcomes: dict[tuple[int, str], Outcome] = {}
        self._freeze = Freeze(frozen=False)
        self._unquarantined: dict[tuple[str, int], int] = {}  # rollbacks by model and row
        self._due: list[tuple[float, int]] = []  # (time of the next action, row)
        self._by_row: list[FakeDevice] = []
        self.engine = self._new_engine()
        if isinstance(devices, int):
            devices = [FakeDevice(f"device-{number:04d}") for number in range(devices)]
        for device in devices:
            self.enrol(device)

    # Devices and releases.

    def enrol(self, device: FakeDevice) -> None:
        """Enrol a device. Its first check-in is within the next interval."""
        row = self._add(device)
        self.devices[device.name] = device
        self._by_row.append(device)
        first = self._interval_s * mix64(device_hash(device.name)) / _WHOLE
        heapq.heappush(self._due, (self.now + first, row))

    def publish(
        self,
        release: str,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        *,
        profiles: Iterable[str] | None = None,
    ) -> None:
        """Publish a release, with a variant for each of ``profiles``. None: for all profiles."""
        if profiles is None:
            profiles = sorted({device.profile for device in self._by_row})
        self._profiles[release] = tuple(profiles)
        manifest = fake_manifest(self.model, release, profiles, now=self.now)
        self._behaviour[release] = behaviour
        self.engine.add_release(manifest, mix64(device_hash(release)).to_bytes(8).hex() * 4)

    def install(self, release: str) -> str:
        """Install ``release`` on all devices with a completed rollout. Returns its id."""
        for row, device in enumerate(self._by_row):
            device.running = release
            self.engine.fleet.observe(
                row, self.now, model=self.model, release=release, phase=device.phase
            )
        everyone = (WaveSpec(percent=100),)
        spec = RolloutSpec(
            model=self.model, release=release, waves=everyone, gate=GateSpec(soak_s=0)
        )
        rollout = self.start(spec)
        self.command(rollout, Verb.ADVANCE)
        return rollout

    # Commands of an operator.

    def plan(self, spec: RolloutSpec) -> str:
        """Plan a rollout. Returns its id. Raises OperatorError if the engine refuses the plan."""
        number = len(self._states) + 1
        rollout = f"ro-{number}"
        state = self.engine.plan(spec, rollout_id=rollout, salt=mix64(number), now=self.now)
        self._states[rollout] = encode(state)
        self.engine.load(state)
        return rollout

    def start(self, spec: RolloutSpec) -> str:
        """Plan a rollout and start it. Returns its id."""
        rollout = self.plan(spec)
        self.command(rollout, Verb.START)
        return rollout

    def command(self, rollout: str, verb: Verb) -> None:
        """Run a command. Raises OperatorError if the status of the rollout does not allow it."""
        self._commit(self.engine.command(rollout, verb, now=self.now))

    def approve(self, rollout: str, person: str) -> None:
        """Approve. Raises OperatorError if no approval is due or this person has approved."""
        self._commit(self.engine.approve(rollout, person, now=self.now))

    def freeze(self, *, frozen: bool = True, person: str = "operator") -> None:
        """Freeze the fleet: no device starts a release. ``frozen=False`` ends the freeze."""
        self._freeze = Freeze(frozen=frozen, person=person, since=self.now if frozen else None)
        self.engine.set_freeze(self._freeze)

    def unquarantine(self, device: str) -> None:
        """Clear the quarantine of a device, so that it is offered releases again."""
        row = self._row(device)
        for model in self.engine.quarantined_models(row):
            rollbacks = self.engine.rollbacks(model, row)
            self._unquarantined[model, row] = rollbacks
            self.engine.unquarantine(model, row, rollbacks)

    def restart(self) -> None:
        """Lose everything that is not stored, as a killed hub does, and start again."""
        self.engine = self._new_engine()
        for device in self._by_row:
            self._add(device)
        self.engine.set_freeze(self._freeze)
        for release, behaviour in self._behaviour.items():
            self.publish(release, behaviour, profiles=self._profiles[release])
        for state in self._states.values():
            self.engine.load(decode(state, RolloutState))
        for (row, _), outcome in self._outcomes.items():
            self.engine.record(row, outcome, outcome.at)
        for (model, row), rollbacks in self._unquarantined.items():
            self.engine.unquarantine(model, row, rollbacks)

    # Virtual time.

    def tick(self, seconds: float) -> None:
        """Advance the time: devices check in, and gates are evaluated."""
        end = self.now + seconds
        while True:
            acts = self._due[0][0] if self._due else end
            self.now = min(acts, self._next_evaluation, end)
            if self.now >= self._next_evaluation:
                self._evaluate()
                self._next_evaluation = self.now + self._tick_s
            elif self.now >= acts:
                self._check_in(heapq.heappop(self._due)[1])
            else:
                return
            if self.now >= end and self._next_evaluation > end and (not self._due or acts > end):
                return

    def run(self, rollout: str, *, at_most_s: float) -> RolloutView:
        """Advance the time until the rollout has ended, at most by ``at_most_s`` seconds."""
        end = self.now + at_most_s
        while rollout in self.engine.open_rollouts() and self.now < end:
            self.tick(self._tick_s)
        return self.view(rollout)

    def report(self, device: str, rollout: str, kind: OutcomeKind, reason: str = "") -> bool:
        """Report an outcome of a device. False if it is not new or the start is not admitted."""
        row = self._row(device)
        release = decode(self._states[rollout], RolloutState).spec.release
        outcome = Outcome(
            id=f"{device}-{rollout}-{kind}"[:64],
            rollout=rollout,
            release=release,
            kind=kind,
            at=self.now,
            reason=reason,
        )
        _, stored = self._exchange(row, self._check_in_of(self._by_row[row], (outcome,)))
        return outcome in stored

    # Views.

    def view(self, rollout: str) -> RolloutView:
        return self.engine.view(rollout, self.now)

    def why(self, rollout: str) -> WaitReport:
        return self.engine.why_rollout(rollout, self.now)

    def why_device(self, device: str) -> WaitReport:
        return self.engine.why_device(self._row(device), self.now)

    def on_release(self) -> dict[str, int]:
        """The number of devices that serve each release, as devices report it."""
        counts: dict[str, int] = {}
        for device in self._by_row:
            if device.running is not None:
                counts[device.running] = counts.get(device.running, 0) + 1
        return dict(sorted(counts.items()))

    # Internal.

    def _check_in(self, row: int) -> None:
        device = self._by_row[row]
        if device.dead:
            return
        if not device.offline:
            self._exchange_all(row, device)
        wakes = device.wakes_at
        soon = self.now + self._interval_s
        due = soon if wakes is None else max(min(wakes, soon), self.now + 1e-3)
        heapq.heappush(self._due, (soon if device.offline else due, row))

    def _exchange_all(self, row: int, device: FakeDevice) -> None:
        now, fate = self.now, self._fate(device)
        device.live(now, fate)
        if not OLDEST <= device.protocol <= PROTOCOL:
            self.engine.fleet.set_protocol(row, device.protocol)
            return  # the hub refuses the check-in
        outcomes = tuple(self._measured(device, one) for one in device.spool[:OUTCOMES_PER_CHECKIN])
        figures = None if device.running is None else self._figures(device, device.running)
        answered, _ = self._exchange(row, self._check_in_of(device, outcomes, figures))
        for outcome in outcomes:
            if outcome.id in answered.acked:
                device.acknowledged(outcome.id, now, fate)
        if not device.dead:
            device.receive(answered.offer, now)

    def _check_in_of(
        self,
        device: FakeDevice,
        outcomes: tuple[Outcome, ...],
        figures: Telemetry | None = None,
    ) -> CheckIn:
        device.seq += 1
        return CheckIn(
            protocol=device.protocol,
            seq=device.seq,
            phase=device.phase,
            model=self.model if device.running is not None else None,
            release=device.running,
            outcomes=outcomes,
            telemetry=figures,
        )

    def _exchange(
        self, row: int, check_in: CheckIn
    ) -> tuple[checkin.Answered, tuple[Outcome, ...]]:
        """One check-in. Returns the answer and the outcomes that were stored."""
        step = checkin.begin(self.engine, row, check_in, self.now)
        stored: list[Outcome] = []
        while isinstance(step, checkin.Pending):
            fresh = [one for one in step.to_store if (row, one.id) not in self._outcomes]
            self._outcomes.update({(row, one.id): one for one in fresh})
            stored += fresh
            step = checkin.finish(self.engine, step, fresh, self.now)
        if isinstance(step, checkin.OutOfSequence):
            msg = f"{self._by_row[row].name} sent check-in {check_in.seq} before"
            raise AssertionError(msg)  # noqa: TRY004 - a refusal, not a wrong argument
        return step, tuple(stored)

    def _fate(self, device: FakeDevice) -> Fate:
        offer = device.asking
        attempt = device.trial or device.staging
        if attempt is not None:
            offer = attempt.offer
        if offer is None:
            return Fate.HEALTHY
        fate = device.fates.get(offer.release)
        return fate or self._behaviour[offer.release].fate(device.name, offer.release)

    def _figures(self, device: FakeDevice, release: str) -> Telemetry:
        before, device.window = device.window or release, release
        return telemetry(
            release,
            self._behaviour[release],
            round(self._interval_s * REQUESTS_PER_S),
            before=(before, self._behaviour[before]),
        )

    def _measured(self, device: FakeDevice, outcome: Outcome) -> Outcome:
        """The outcome; a confirmation with the golden accuracies of this release and the last."""
        if outcome.kind is not OutcomeKind.CONFIRMED or device.slot is None:
            return outcome
        accuracy = self._behaviour[outcome.release].accuracy
        return replace(
            outcome, accuracy=accuracy, accuracy_before=self._behaviour[device.slot].accuracy
        )

    def _evaluate(self) -> None:
        for rollout in self.engine.open_rollouts():
            change = self.engine.evaluate(rollout, self.now)
            if change is not None:
                self._commit(change)

    def _commit(self, change: Change) -> None:
        self._states[change.state.id] = encode(change.state)
        self.audit += [
            Noted(self.now, line.actor, line.action, line.about, line.detail)
            for line in change.audit
        ]
        self.engine.commit(change)

    def _row(self, device: str) -> int:
        row = self.engine.fleet.row(device)
        if row is None:
            msg = f"There is no device {device!r}."
            raise KeyError(msg)
        return row

    def _add(self, device: FakeDevice) -> int:
        return self.engine.fleet.add(
            device.name,
            device.profile,
            device.labels,
            runtimes=device.runtimes,
            memory_mib=device.memory_mib,
        )

    def _new_engine(self) -> Engine:
        return Engine(
            now=self.now,
            offline_after_s=3 * self._interval_s,
            gate=self._gate,
            utc_offset_s=utc_offset_s,
        )
