"""The real engine over a store in memory, driven in the order in which the hub drives it.

Each change is stored as bytes before it is committed, each outcome before it is recorded, and
``restart`` loses everything else. There is no clock, no randomness and no thread: a run is a
function of its arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edgefleet.base.ids import device_hash, mix64
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.device import CheckIn, Outcome
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Freeze, RolloutSpec, RolloutView, Verb
from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.lifecycle.state import RolloutState

START: Final = 1_790_000_000.0  # 2026-09-21 13:33:20 UTC, a Monday


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of the audit log."""

    at: float
    actor: str
    action: str
    about: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """A durable outcome of the device in ``row``. ``at`` is the time of receipt by the hub."""

    row: int
    outcome: Outcome
    at: float


@dataclass(frozen=True, slots=True)
class _Enrolled:
    name: str
    profile: str = "generic_x86"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    runtimes: tuple[str, ...] = ("onnx",)
    memory_mib: int = 1024
    models_memory_mib: int = 0
    versions: tuple[tuple[str, str], ...] = ()
    comparisons: tuple[str, ...] = ()
    datatypes: tuple[str, ...] = ()
    hashed: str = ""  # the name at enrolment of a renamed device
    disk_fault: str = ""  # as it reported with its facts
    removed_at: float | None = None


class MemoryHub:
    """A hub for devices of your own. A device is named by its row, in order of enrolment.

    Set ``now``, in seconds since the epoch, to let time pass, and call ``check_in`` and
    ``evaluate``. A device counts as offline after ``offline_after_s`` without a check-in.
    """

    def __init__(
        self, *, now: float = START, offline_after_s: float = 180.0, gate: Gate = judge
    ) -> None:
        self.now = now
        self.audit: list[Noted] = []
        self.outcomes: list[StoredOutcome] = []  # in the order in which they were stored
        self._offline_after_s = offline_after_s
        self._gate = gate
        self._known: set[tuple[int, str]] = set()  # row and outcome id
        self._states: dict[str, bytes] = {}
        self._enrolled: list[_Enrolled] = []
        self._releases: dict[tuple[str, str], tuple[ReleaseManifest, str]] = {}
        self._freeze = Freeze(frozen=False)
        self._unquarantined: dict[tuple[str, int], int] = {}  # rollbacks by model and row
        self.engine = self._new_engine()

    # Devices and releases.

    def add_device(
        self,
        name: str,
        profile: str = "generic_x86",
        labels: Mapping[str, str] | None = None,
        *,
        runtimes: tuple[str, ...] = ("onnx",),
        memory_mib: int = 1024,
        models_memory_mib: int = 0,
        versions: tuple[tuple[str, str], ...] = (),
        comparisons: tuple[str, ...] = (),
        datatypes: tuple[str, ...] = (),
    ) -> int:
        """Enrol a device. Returns its row."""
        enrolled = _Enrolled(
            name,
            profile,
            labels or {},
            runtimes,
            memory_mib,
            models_memory_mib,
            versions,
            comparisons,
            datatypes,
        )
        self._enrolled.append(enrolled)
        return _add(self.engine, enrolled)

    def add_release(self, manifest: ReleaseManifest, sha256: str | None = None) -> str:
        """Publish a release. Returns the digest of its manifest: ``sha256``, or one by its name."""
        release = manifest.release
        digest = sha256 or mix64(device_hash(release)).to_bytes(8).hex() * 4
        self._releases[manifest.model, release] = (manifest, digest)
        self.engine.add_release(manifest, digest)
        return digest

    def report_disk_fault(self, device: str, code: str) -> None:
        """Record that a device cannot write its disk, or with an empty code that it can."""
        row = self.row(device)
        self._enrolled[row] = replace(self._enrolled[row], disk_fault=code)
        self.engine.fleet.disk_faults.set(row, code)

    # Commands of an operator.

    def label(self, device: str, labels: Mapping[str, str]) -> None:
        """Replace the labels of a device."""
        row = self.row(device)
        self._enrolled[row] = replace(self._enrolled[row], labels=labels)
        self.engine.fleet.set_labels(row, labels)

    def rename(self, device: str, name: str) -> None:
        """Give a device another name. It keeps its place in rollouts."""
        row = self.row(device)
        before = self._enrolled[row]
        self._enrolled[row] = replace(before, name=name, hashed=before.hashed or before.name)
        self.engine.fleet.rename(row, name)

    def remove(self, device: str) -> None:
        """Remove a device from the fleet and from every count."""
        row = self.row(device)
        before = self._enrolled[row]
        self._enrolled[row] = replace(
            before,
            name=f"{before.name}/{row}",
            hashed=before.hashed or before.name,
            removed_at=self.now,
        )
        self.engine.remove_device(row, self.now)

    def plan(self, spec: RolloutSpec, *, salt: int | None = None) -> str:
        """Plan a rollout. Returns its id. Raises OperatorError if the engine refuses the plan.

        ``salt`` decides the position of each device. None: a function of the id.
        """
        number = len(self._states) + 1
        rollout = f"ro-{number}"
        salt = mix64(number) if salt is None else salt
        state = self.engine.plan(spec, rollout_id=rollout, salt=salt, now=self.now)
        self._states[rollout] = encode(state)
        self.engine.load(state)
        return rollout

    def start(self, spec: RolloutSpec, *, salt: int | None = None) -> str:
        """Plan a rollout and start it. Returns its id."""
        rollout = self.plan(spec, salt=salt)
        self.command(rollout, Verb.START)
        return rollout

    def command(self, rollout: str, verb: Verb, *, generation: int | None = None) -> None:
        """Run a command. Raises OperatorError if the status of the rollout does not allow it.

        Raises OperatorError as well if the rollout has left ``generation``. None: any generation.
        """
        self.commit(self.engine.command(rollout, verb, now=self.now, generation=generation))

    def approve(self, rollout: str, person: str) -> None:
        """Approve. Raises OperatorError if no approval is due or this person has approved."""
        self.commit(self.engine.approve(rollout, person, now=self.now))

    def freeze(self, *, frozen: bool = True, person: str = "operator") -> None:
        """Freeze the fleet: no device starts a release. ``frozen=False`` ends the freeze."""
        self._freeze = Freeze(frozen=frozen, person=person, since=self.now if frozen else None)
        self.engine.set_freeze(self._freeze)

    def unquarantine(self, device: str) -> None:
        """Clear the quarantine of a device, so that it is offered releases again."""
        row = self.row(device)
        for model in self.engine.quarantined_models(row):
            rollbacks = self.engine.rollbacks(model, row)
            self._unquarantined[model, row] = rollbacks
            self.engine.unquarantine(model, row, rollbacks)

    def clear_copy(self, device: str) -> None:
        """Clear a copied device: the copies of it are stopped."""
        self.engine.fleet.copies.clear(self.row(device))

    # The work of the hub.

    def check_in(self, row: int, check_in: CheckIn) -> checkin.Answered | checkin.OutOfSequence:
        """One check-in of a device, in the order of ``rollout/checkin.py``."""
        step = checkin.begin(self.engine, row, check_in, self.now)
        while isinstance(step, checkin.Pending):
            fresh = self.store(row, step.to_store)
            step = checkin.finish(self.engine, step, fresh, self.now)
        return step

    def store(self, row: int, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """Make the outcomes of a device durable. Returns those that are new to the store."""
        fresh = tuple(one for one in outcomes if (row, one.id) not in self._known)
        self._known.update((row, one.id) for one in fresh)
        self.outcomes += [StoredOutcome(row, one, self.now) for one in fresh]
        return fresh

    def record(self, row: int, outcome: Outcome) -> bool:
        """Store and count an outcome as it is, also a start without admission. False if known."""
        fresh = self.store(row, (outcome,))
        return all(self.engine.intake.record(row, one, self.now) for one in fresh) and bool(fresh)

    def evaluate(self) -> None:
        """Evaluate all gates, schedules and reverts, as the hub does periodically."""
        for rollout in self.engine.evaluated_rollouts():
            change = self.engine.evaluate(rollout, self.now)
            if change is not None:
                self.commit(change)

    def commit(self, change: Change) -> None:
        """Store a change of a rollout with its audit lines, then commit it."""
        self._states[change.state.id] = encode(change.state)
        self.audit += [
            Noted(self.now, line.actor, line.action, line.about, line.detail)
            for line in change.audit
        ]
        self.engine.commit(change)

    def restart(self, *, reverse: bool = False) -> None:
        """Lose everything that is not stored, as a killed hub does, and start again.

        ``reverse`` reads rollouts and outcomes in reverse order, which makes no difference.
        """
        copies = self.engine.fleet.copies
        copied = {row: dict(copies.runs(row)) for row in copies.rows.tolist()}
        self.engine = self._new_engine()
        for enrolled in self._enrolled:
            _add(self.engine, enrolled)
        self.engine.fleet.copies.load(copied)
        self.engine.set_freeze(self._freeze)
        for manifest, sha256 in self._releases.values():
            self.engine.add_release(manifest, sha256)
        way = -1 if reverse else 1
        for state in self.states()[::way]:
            self.engine.load(state)
        for stored in self.outcomes[::way]:
            self.engine.intake.record(stored.row, stored.outcome, stored.at)
        for row, enrolled in enumerate(self._enrolled):
            if enrolled.removed_at is not None:
                self.engine.remove_device(row, enrolled.removed_at)
        for (model, row), rollbacks in self._unquarantined.items():
            self.engine.unquarantine(model, row, rollbacks)

    # Views.

    def states(self) -> tuple[RolloutState, ...]:
        """The stored states of all rollouts, oldest first."""
        return tuple(decode(state, RolloutState) for state in self._states.values())

    def row(self, device: str) -> int:
        """The row of a device. Raises KeyError for an unknown name."""
        row = self.engine.fleet.row(device)
        if row is None:
            msg = f"There is no device {device!r}."
            raise KeyError(msg)
        return row

    def view(self, rollout: str) -> RolloutView:
        return self.engine.view(rollout, self.now)

    def why(self, rollout: str) -> WaitReport:
        return self.engine.why_rollout(rollout, self.now)

    def why_device(self, device: str) -> WaitReport:
        return self.engine.why_device(self.row(device), self.now)

    def _new_engine(self) -> Engine:
        return Engine(
            now=self.now,
            offline_after_s=self._offline_after_s,
            gate=self._gate,
            utc_offset_s=utc_offset_s,
        )


def _add(engine: Engine, enrolled: _Enrolled) -> int:
    row = engine.fleet.add(
        enrolled.name,
        enrolled.profile,
        enrolled.labels,
        runtimes=enrolled.runtimes,
        memory_mib=enrolled.memory_mib,
        models_memory_mib=enrolled.models_memory_mib,
        versions=enrolled.versions,
        comparisons=enrolled.comparisons,
        datatypes=enrolled.datatypes,
        hashed=enrolled.hashed,
    )
    engine.fleet.disk_faults.set(row, enrolled.disk_fault)
    return row
