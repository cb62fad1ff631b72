"""A fleet of fake devices under the real engine, in virtual time."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.device import (
    CheckIn,
    ModelReport,
    Outcome,
    OutcomeKind,
    Telemetry,
    digest,
)
from edgefleet.protocol.labels import LabelReport
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, RolloutView, Verb, WaveSpec
from edgefleet.protocol.serving_health import ServingEnds, ServingHealth
from edgefleet.protocol.version import OLDEST, ONE_MODEL, PROTOCOL
from edgefleet.rollout import checkin
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.testing.behaviour import Behaviour, Fate
from edgefleet.testing.fake_device import FakeDevice
from edgefleet.testing.fake_labels import FakeLabels
from edgefleet.testing.fake_telemetry import telemetry
from edgefleet.testing.limits import OUTCOMES_PER_CHECKIN
from edgefleet.testing.memory_hub import START, MemoryHub
from edgefleet.testing.release import (
    ARTIFACT_BYTES,
    GOLDEN_BYTES,
    MEMORY_LIMIT_MIB,
    fake_manifest,
)

MODEL: Final = "digits"
_WHOLE: Final = float(1 << 64)
_AT_ONCE_S: Final = 1e-5  # from a check-in to the end of a stage that takes no time

FateOf = Callable[[FakeDevice], Fate]
"""The fate of each device with one release."""


class FakeFleet(MemoryHub):
    """A hub and its devices. ``interval_s`` is the time between check-ins of a device.

    ``tick_s`` is the time between evaluations of the gates.
    """

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
        super().__init__(now=now, offline_after_s=3 * interval_s, gate=gate)
        self.model = model
        self.devices: dict[str, FakeDevice] = {}
        self._interval_s = interval_s
        self._tick_s = tick_s
        self._next_evaluation = now + tick_s
        self._behaviour: dict[str, Behaviour] = {}
        self._fates: dict[str, FateOf] = {}
        self._due: list[tuple[float, int]] = []  # (time of the next action, row)
        self._by_row: list[FakeDevice] = []
        self._labels: dict[str, FakeLabels] = {}  # by device
        if isinstance(devices, int):
            devices = [FakeDevice(f"device-{number:04d}") for number in range(devices)]
        for device in devices:
            self.enrol(device)

    # Devices and releases.

    @property
    def by_row(self) -> Sequence[FakeDevice]:
        """The devices in order of enrolment. The index is the row of ``MemoryHub``."""
        return self._by_row

    def enrol(self, device: FakeDevice) -> FakeDevice:
        """Enrol a device. Its first check-in is within the next interval. Returns the device."""
        row = device.row = self.add_device(
            device.name,
            device.profile,
            device.labels,
            runtimes=device.runtimes,
            memory_mib=device.memory_mib,
            models_memory_mib=device.models_memory_mib,
            versions=device.versions,
            comparisons=device.comparisons,
            datatypes=device.datatypes,
        )
        self.devices[device.name] = device
        self._by_row.append(device)
        first = self._interval_s * mix64(device_hash(device.name)) / _WHOLE
        heapq.heappush(self._due, (self.now + first, row))
        return device

    def report_disk_fault(self, device: str, code: str) -> None:
        """The device cannot write its disk, and defers what it is offered. Empty: it can again."""
        super().report_disk_fault(device, code)
        self.devices[device].disk_fault = code

    def rename(self, device: str, name: str) -> None:
        super().rename(device, name)
        self.devices[name] = self.devices.pop(device)

    def remove(self, device: str) -> None:
        """Remove a device. It never checks in again."""
        super().remove(device)
        self.devices.pop(device).dead = True

    def publish(
        self,
        release: str,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        *,
        profiles: Iterable[str] | None = None,
        fate: FateOf | None = None,
        artifact_bytes: int = ARTIFACT_BYTES,
        golden_bytes: int = GOLDEN_BYTES,
        memory_limit_mib: int = MEMORY_LIMIT_MIB,
        change: Callable[[ReleaseManifest], ReleaseManifest] | None = None,
    ) -> str:
        """Publish a release, with a variant for each of ``profiles``. None: for all profiles.

        ``change`` gives the manifest to publish instead of the usual one.

        ``fate`` decides the fate of each device. None: by the shares of ``behaviour``. A release
        that was published before gets the new behaviour. Returns the digest of the manifest.
        """
        if profiles is None:
            profiles = sorted({device.profile for device in self._by_row})
        self._behaviour[release] = behaviour
        self._fates.pop(release, None)
        if fate is not None:
            self._fates[release] = fate
        manifest = fake_manifest(
            self.model,
            release,
            profiles,
            now=self.now,
            artifact_bytes=artifact_bytes,
            golden_bytes=golden_bytes,
            memory_limit_mib=memory_limit_mib,
        )
        return self.add_release(manifest if change is None else change(manifest))

    def install(self, release: str) -> str:
        """Install ``release`` on all devices with a completed rollout. Returns its id."""
        for row, device in enumerate(self._by_row):
            device.running = release
            self.engine.fleet.observe(
                row, self.now, model=self.model, release=release, phase=device.phase
            )
        everyone = (WaveSpec(percent=100),)
        spec = RolloutSpec(
            model=self.model, release=release, waves=everyone, gate=GateSpec(soak_s=0), bake_s=0
        )
        rollout = self.start(spec)
        self.command(rollout, Verb.ADVANCE)
        return rollout

    # Virtual time.

    def tick(self, seconds: float) -> None:
        """Advance the time: devices check in, and gates are evaluated."""
        end = self.now + seconds
        while True:
            acts = self._due[0][0] if self._due else end
            self.now = min(acts, self._next_evaluation, end)
            if self.now >= self._next_evaluation:
                self.evaluate()
                self._next_evaluation = self.now + self._tick_s
            elif self.now >= acts:
                self._act(heapq.heappop(self._due)[1])
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

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back: nothing happens in between, as while the hub is down."""
        self.now += seconds
        self._next_evaluation += seconds
        self._due = [(at + seconds, row) for at, row in self._due]

    def report(self, device: str, rollout: str, kind: OutcomeKind, reason: str = "") -> bool:
        """Report an outcome of a device. False if it is not new or the start is not admitted."""
        row = self.row(device)
        outcome = Outcome(
            id=f"{device}-{rollout}-{kind}"[:64],
            rollout=rollout,
            release=self.view(rollout).release,
            kind=kind,
            at=self.now,
            reason=reason,
        )
        before = len(self.outcomes)
        self._exchange(row, self._check_in_of(self._by_row[row], (outcome,)))
        return any(stored.outcome == outcome for stored in self.outcomes[before:])

    def on_release(self) -> Counter[str]:
        """The number of devices that serve each release, as devices report it."""
        running = [device.running for device in self._by_row if device.running is not None]
        return Counter(sorted(running))

    # Internal.

    def _act(self, row: int) -> None:
        device = self._by_row[row]
        silent = device.dead or device.is_offline(self.now)
        if not silent:
            self._exchange_all(row, device)
        wakes = device.wakes_at
        soon = self.now + self._interval_s
        due = soon if wakes is None else max(min(wakes, soon), self.now + _AT_ONCE_S)
        heapq.heappush(self._due, (soon if silent else due, row))

    def _exchange_all(self, row: int, device: FakeDevice) -> None:
        now, fate = self.now, self._fate(device)
        device.live(now, fate)
        if not OLDEST <= device.protocol <= PROTOCOL:
            self.engine.fleet.set_protocol(row, device.protocol)
            return  # the hub refuses the check-in
        outcomes = tuple(self._measured(device, one) for one in device.spool[:OUTCOMES_PER_CHECKIN])
        sent = self._check_in_of(device, outcomes, self._figures(device))
        answered = self._exchange(
            row,
            replace(sent, labels=self._label_report(device), serving=self._serving(device)),
        )
        if device.answers_lost:
            return
        for outcome in outcomes:
            if outcome.id in answered.acked:
                device.acknowledged(outcome.id, now, fate)
        if not device.dead:
            mine = (offer for offer in answered.offers if offer.model == self.model)
            device.receive(next(mine, None), now)

    def _serving(self, device: FakeDevice) -> ServingHealth | None:
        """The report on its serving process, which ends by itself and comes back."""
        behaviour = self._behaviour.get(device.running or "")
        if behaviour is None or not behaviour.serving_ends or device.trial is not None:
            return None
        count = behaviour.serving_ends
        ends = ServingEnds(cause="SIGSEGV", count=count, last_s=1.0)
        return ServingHealth(ends=(ends,), by_model={self.model: count})

    def _check_in_of(
        self,
        device: FakeDevice,
        outcomes: tuple[Outcome, ...],
        figures: Telemetry | None = None,
    ) -> CheckIn:
        device.seq += 1
        if device.protocol > ONE_MODEL:
            mine = ModelReport(model=self.model, release=device.running, phase=device.phase)
            models = tuple(one for one in (mine, *device.beside) if one.is_on_device)
            return CheckIn(
                protocol=device.protocol,
                seq=device.seq,
                digest=digest(models),
                models=models,
                full=True,
                outcomes=outcomes,
                telemetry=figures and replace(figures, model=self.model),
            )
        model, release = self.model, device.running
        if release is None and device.beside:
            model, release = device.beside[0].model, device.beside[0].release
        return CheckIn(
            protocol=device.protocol,
            seq=device.seq,
            phase=device.phase,
            model=model if release is not None else None,
            release=release,
            outcomes=outcomes,
            telemetry=figures,
        )

    def _exchange(self, row: int, check_in: CheckIn) -> checkin.Answered:
        answer = self.check_in(row, check_in)
        if isinstance(answer, checkin.OutOfSequence):
            msg = f"{self._by_row[row].name} sent check-in {check_in.seq} before"
            raise AssertionError(msg)  # noqa: TRY004 - a refusal, not a wrong argument
        return answer

    def _fate(self, device: FakeDevice) -> Fate:
        offer = device.asking
        attempt = device.trial or device.staging
        if attempt is not None:
            offer = attempt.offer
        if offer is None:
            return Fate.HEALTHY
        own = device.fates.get(offer.release)
        if own is not None:
            return own
        decide = self._fates.get(offer.release)
        if decide is not None:
            return decide(device)
        return self._behaviour[offer.release].fate(device.name, offer.release)

    def _figures(self, device: FakeDevice) -> Telemetry | None:
        release = device.running
        if release is None or not device.requests_s:
            return None
        behaviour = self._behaviour[release]
        requests = round(self._interval_s * device.requests_s * behaviour.traffic)
        before, device.window = device.window or release, release
        self._labels_of(device).answered(self.now, release, behaviour, requests)
        if not requests and before == release:
            return None
        return telemetry(
            release,
            behaviour,
            requests,
            before=(before, self._behaviour[before]),
        )

    def _labels_of(self, device: FakeDevice) -> FakeLabels:
        return self._labels.setdefault(device.name, FakeLabels(device.name))

    def _label_report(self, device: FakeDevice) -> LabelReport | None:
        return self._labels_of(device).report(self.now, self.model)

    def _measured(self, device: FakeDevice, outcome: Outcome) -> Outcome:
        """The outcome; a confirmation with the golden accuracies of this release and the last."""
        if outcome.kind is not OutcomeKind.CONFIRMED or device.slot is None:
            return outcome
        now, before = self._behaviour[outcome.release], self._behaviour[device.slot]
        if now.accuracy is None or before.accuracy is None:
            return outcome
        return replace(outcome, accuracy=now.accuracy, accuracy_before=before.accuracy)
