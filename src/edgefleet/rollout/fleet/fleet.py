"""The fleet in columns: one row per device, 42 bytes plus the name, for any number of models.

Rows are added and never freed, so the row number of a device never changes and its token can
contain it. The row of a removed device has a label set that no selector matches. Labels are
interned as whole sets, so a selector is evaluated once per distinct set. So are the releases on a
device and the phases of its models; see ``release_sets``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.base.ids import device_hash
from edgefleet.protocol.device import CheckIn, Phase
from edgefleet.protocol.release import FIRST_DATATYPES
from edgefleet.protocol.version import OLDEST, ONE_MODEL, PROTOCOL, has_one_model, is_served
from edgefleet.rollout.fleet.columns import Mask, Rows, gather, longer
from edgefleet.rollout.fleet.copies import Copies
from edgefleet.rollout.fleet.device_models import DeviceModels
from edgefleet.rollout.fleet.disk_faults import DiskFaults
from edgefleet.rollout.fleet.label_index import LabelIndex
from edgefleet.rollout.fleet.missed_numbers import MissedNumbers
from edgefleet.rollout.fleet.release_sets import ReleaseSet
from edgefleet.rollout.fleet.reports import FleetFigures, Report, ReportColumns
from edgefleet.rollout.fleet.runs import Runs
from edgefleet.rollout.fleet.selector import Selector
from edgefleet.rollout.fleet.serving_health import ServingReports
from edgefleet.rollout.limits import SEQ_MAX

NOT_REPORTED: Final = 0  # the protocol version of an agent that has not reported one
_REMOVED: Final[Mapping[str, str]] = MappingProxyType({})  # the labels of removed devices
NO_PROTOCOL: Final = 255  # the protocol version of an agent, if it does not fit into the column


@dataclass(frozen=True, slots=True)
class Kit:
    """The facts that eligibility depends on. Empty runtimes, or 0 memory: not reported.

    ``memory_mib`` is the memory of the machine, ``models_memory_mib`` that for all its models.
    ``versions`` are of the runtimes. Without ``comparisons``, the agent has none but the first one.
    ``datatypes`` are those that the agent knows, never empty.
    """

    profile: str
    runtimes: frozenset[str] = frozenset()
    memory_mib: int = 0
    models_memory_mib: int = 0
    versions: frozenset[tuple[str, str]] = frozenset()
    comparisons: frozenset[str] = frozenset()
    datatypes: frozenset[str] = FIRST_DATATYPES


class Fleet:
    """Columns of device facts and of the last check-ins.

    ``listening_since`` is when this process began to accept check-ins, in seconds since the epoch.
    The time before counts for no device as silence. A device is offline after ``offline_after_s``
    without a check-in.
    """

    def __init__(self, *, listening_since: float, offline_after_s: float) -> None:
        self.listening_since = listening_since
        self.offline_after_s = offline_after_s
        self.facts_version = 0  # grows when a device is added, or a fact behind eligibility changes
        self.limits_memory = False  # a device has reported the memory for its models
        self.has_older_agents = False  # an agent has reported another version than the newest
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        self._kits: list[Kit] = []
        self._kit_ids: dict[Kit, int] = {}
        self._label_sets: list[Mapping[str, str]] = []
        self._label_ids: dict[tuple[tuple[str, str], ...], int] = {}
        self._label_index = LabelIndex()
        self._label_keys: set[str] = set()
        self._removed_id: int | None = None  # the number of the label set of removed devices
        self.moves: dict[int, int] = {}  # see ``note_move``: row -> number of its last move
        self._moved_now: set[int] = set()  # those that ``check_moves`` has not looked at
        self._move_count = 0
        self.removed_count = 0
        self.models = DeviceModels()
        self.copies = Copies()
        self.missed = MissedNumbers()
        self.serving = ServingReports()
        self.disk_faults = DiskFaults()
        self._sets, self._known_lists = self.models.sets, self.models.known_lists
        self._hash = np.zeros(0, np.uint64)
        self._last_seen = np.zeros(0, np.float64)
        self._seq = np.zeros(0, np.int64)
        self._labels = np.zeros(0, np.uint32)
        self._kit = np.zeros(0, np.uint32)
        self._protocol = np.zeros(0, np.uint8)
        self._changed = np.zeros(0, np.uint8)
        self._grow(1024)

    def __len__(self) -> int:
        """The number of rows, those of removed devices included."""
        return len(self._names)

    @property
    def device_count(self) -> int:
        """The number of devices."""
        return len(self._names) - self.removed_count

    # One device.

    def add(
        self,
        name: str,
        profile: str,
        labels: Mapping[str, str],
        *,
        runtimes: Iterable[str] = (),
        memory_mib: int = 0,
        models_memory_mib: int = 0,
        versions: Iterable[tuple[str, str]] = (),
        comparisons: Iterable[str] = (),
        datatypes: Iterable[str] = (),
        hashed: str = "",
    ) -> int:
        """Enrol a device and return its row. The name must be new.

        Its position in rollouts comes from ``hashed``, or from its name without it.
        """
        if name in self._rows:
            msg = f"device {name} is already in the fleet"
            raise ValueError(msg)
        row = len(self._names)
        if row == len(self._hash):
            self._grow(2 * row)
        self._names.append(name)
        self._rows[name] = row
        self._hash_at[row] = device_hash(hashed or name)
        kit = Kit(
            profile,
            frozenset(runtimes),
            memory_mib,
            models_memory_mib,
            frozenset(versions),
            frozenset(comparisons),
            frozenset(datatypes) or FIRST_DATATYPES,
        )
        self._kit_at[row] = self._kit_id(kit)
        self._labels_at[row] = self._label_id(labels)
        self.facts_version += 1
        return row

    def rename(self, row: int, name: str) -> None:
        """Give the device another name, which must be new. It keeps its position in rollouts."""
        del self._rows[self._names[row]]
        self._names[row] = name
        self._rows[name] = row

    def set_labels(self, row: int, labels: Mapping[str, str]) -> None:
        """Replace the labels of the device."""
        number = self._label_id(labels)
        if self._labels_at[row] not in (number, self._removed_id):
            self._labels_at[row] = number
            self.facts_version += 1
            self.note_move(row)

    def note_move(self, row: int) -> None:
        """Note that rollouts may have reports of a device that they do not select.

        The labels or the kit of the device changed, or it has reported to such a rollout.
        """
        self._move_count += 1
        self.moves[row] = self._move_count
        self._moved_now.add(row)

    def have_moved(self, rows: Rows) -> Mask:
        """True for each of ``rows`` that is in ``moves``."""
        if not self.moves:
            return np.zeros(len(rows), np.bool_)
        moved: Mask = np.isin(rows, np.fromiter(self.moves, np.int64, len(self.moves)))
        return moved

    def check_moves(self, have_strayed: Callable[[Rows], Mask]) -> None:
        """Drop the devices noted since the last call for which ``have_strayed`` is false.

        It is asked for ascending rows: whether a rollout that does not select the device has a
        report of it.
        """
        if not self._moved_now:
            return
        rows = np.array(sorted(self._moved_now), np.int64)
        self._moved_now.clear()
        for row in rows[~have_strayed(rows)].tolist():
            del self.moves[row]

    def remove(self, row: int) -> None:
        """Take the device out of every count and selection. Its name is free again."""
        del self._rows[self._names[row]]
        self._names[row] = f"{self._names[row]}/{row}"  # no valid name, so it is never taken
        if self._removed_id is None:
            self._removed_id = len(self._label_sets)
            self._label_sets.append(_REMOVED)
            self._label_index.add(_REMOVED)
        self._labels_at[row] = self._removed_id
        self._last_seen_at[row] = 0.0
        self.models.write(row, 0, 0)
        self.disk_faults.set(row, "")
        self.copies.forget(row)
        self.missed.forget(row)
        self._changed_at[row] = 0
        self.removed_count += 1
        self.facts_version += 1

    def is_removed(self, row: int) -> bool:
        """True after ``remove``."""
        return self._labels_at[row] == self._removed_id

    def set_facts(
        self,
        row: int,
        profile: str,
        labels: Mapping[str, str],
        *,
        runtimes: Iterable[str] = (),
        memory_mib: int = 0,
        models_memory_mib: int = 0,
        versions: Iterable[tuple[str, str]] = (),
        comparisons: Iterable[str] = (),
        datatypes: Iterable[str] = (),
    ) -> None:
        """Replace the facts of a device. Those of a removed device stay."""
        if self.is_removed(row):
            return
        kit_id = self._kit_id(
            Kit(
                profile,
                frozenset(runtimes),
                memory_mib,
                models_memory_mib,
                frozenset(versions),
                frozenset(comparisons),
                frozenset(datatypes) or FIRST_DATATYPES,
            )
        )
        label_id = self._label_id(labels)
        if self._kit_at[row] != kit_id or self._labels_at[row] != label_id:
            self._kit_at[row] = kit_id
            self._labels_at[row] = label_id
            self.facts_version += 1
            self.note_move(row)

    def set_protocol(self, row: int, protocol: int) -> None:
        """Record the protocol version that the agent of the device sent last."""
        version = _kept(protocol)
        before = self._protocol_at[row]
        if before != version:
            self._protocol_at[row] = version
            self._changed_at[row] = 1
            self._note_protocol(before, version)

    def set_protocols(self, rows: Rows, protocol: int) -> None:
        """``set_protocol`` for many devices with the same version."""
        version = _kept(protocol)
        before = self._protocol[rows]
        other = before != version
        if other.any():
            self._protocol[rows[other]] = version
            self._changed[rows[other]] = 1
            for one in np.flatnonzero(np.bincount(before[other])).tolist():
                self._note_protocol(one, version)

    def _note_protocol(self, before: int, version: int) -> None:
        """Note that an agent has another version, if eligibility depends on the difference."""
        self.has_older_agents = self.has_older_agents or version != PROTOCOL
        served = is_served(version) != (before == NOT_REPORTED or is_served(before))
        models = has_one_model(version) != has_one_model(before) and self.models.model_count > 1
        if served or models:
            self.facts_version += 1

    def observe(
        self,
        row: int,
        now: float,
        *,
        model: str | None,
        release: str | None,
        phase: Phase,
        protocol: int | None = None,
    ) -> None:
        """Record a check-in of an agent with one model. None keeps the known ``protocol``."""
        key = (model, release, phase)
        numbers = self._known_lists.get(key) or self.models.intern_one(*key)
        if self._set_at[row] != numbers[0] or self._activity_at[row] != numbers[1]:
            self._set_models(row, *numbers)
        elif not self._last_seen_at[row]:
            self._changed_at[row] = 1
        self._last_seen_at[row] = now
        if protocol is not None and self._protocol_at[row] != protocol:
            self.set_protocol(row, protocol)

    def observe_models(self, row: int, now: float, check_in: CheckIn) -> None:
        """Record a check-in of an agent with several models. Models that it names are known."""
        reports, full = check_in.models, check_in.full
        if reports or full:
            numbers = self.models.intern(row, reports, full=full)
            if self._set_at[row] != numbers[0] or self._activity_at[row] != numbers[1]:
                self._set_models(row, *numbers)
            if full:
                self.models.accept_digest(row, check_in.digest)
        if not self._last_seen_at[row]:
            self._changed_at[row] = 1
        self._last_seen_at[row] = now
        if self._protocol_at[row] != check_in.protocol:
            self.set_protocol(row, check_in.protocol)

    def heartbeats(
        self, rows: Rows, now: float | npt.NDArray[np.float64], running: npt.NDArray[np.uint32]
    ) -> None:
        """Record check-ins of idle devices with one release, given by its number.

        ``now`` is one time for all, or one time per row.
        """
        self._last_seen[rows] = now
        if self.models.write_numbers(rows, running):
            self.facts_version += 1

    def digest_heartbeats(self, rows: Rows, now: float | npt.NDArray[np.float64]) -> None:
        """Record check-ins that have only a digest, and the digest does not differ.

        ``now`` is one time for all, or one time per row.
        """
        self._last_seen[rows] = now

    def note_heartbeat(self, row: int, now: float, *, seq: int, digest: int, protocol: int) -> bool:
        """Record when a device was seen last, if a check-in without a report changes nothing else.

        False if there is more to do, or to refuse. ``seq`` is not recorded.
        """
        if (
            not self._seq_at[row] < seq <= SEQ_MAX
            or self._protocol_at[row] != protocol
            or not self._last_seen_at[row]
            or self.models.digest_at[row] != digest
            or row in self.serving.by_row
            or self.copies.is_copied(row)
        ):
            return False
        self._last_seen_at[row] = now
        return True

    def observe_all_models(self, rows: Rows, now: float, check_in: CheckIn) -> None:
        """``observe_models`` for many devices with the same report."""
        if check_in.models or check_in.full:
            self.models.write_reports(rows, check_in.models, full=check_in.full)
            if check_in.full:
                self.models.accept_digests(rows, check_in.digest)
        self._last_seen[rows] = now
        self.set_protocols(rows, check_in.protocol)

    def observe_all(
        self, rows: Rows, now: float, *, model: str | None, release: str | None, phase: Phase
    ) -> None:
        """``observe`` for many devices with the same report."""
        self._last_seen[rows] = now
        if self.models.write_all_one(rows, model, release, phase):
            self.facts_version += 1

    def accept_seqs(self, rows: Rows, seq: int) -> Mask:
        """``accept_seq`` for many devices that sent the same number."""
        if seq > SEQ_MAX:
            self._seq[rows] = 0
            return np.zeros(len(rows), np.bool_)
        accepted: Mask = self._seq[rows] < seq
        self._seq[rows[accepted]] = seq
        return accepted

    def copy_reports(self) -> ReportColumns:
        """Copy the reported columns, for ``load_reports`` of a fleet of at least this size."""
        end = len(self)
        return ReportColumns(
            self._last_seen[:end].copy(),
            self._seq[:end].copy(),
            self._protocol[:end].copy(),
            self.models.copy(end),
        )

    def load_reports(self, kept: ReportColumns) -> None:
        """Load the result of ``copy_reports``."""
        end = len(kept.seq)
        self._last_seen[:end] = kept.last_seen
        self._seq[:end] = kept.seq
        self._protocol[:end] = kept.protocol
        self.has_older_agents = bool(np.setdiff1d(kept.protocol, (NOT_REPORTED, PROTOCOL)).size)
        self.models.load(kept.models)
        self.facts_version += 1

    def accept_seq(self, row: int, seq: int) -> bool:
        """Record ``seq``. Returns False for a replay: ``seq`` is not above all earlier numbers.

        A number above SEQ_MAX is refused, and the numbering of the device begins anew: otherwise a
        device that once sent a huge number would be out for ever.
        """
        last = self._seq_at[row]
        if seq > SEQ_MAX:
            self._seq_at[row] = 0
            self.missed.forget(row)
            return False
        if seq <= last:
            return False
        if last and seq != last + 1:
            self.missed.note(row, last, seq)
        self._seq_at[row] = seq
        return True

    def row(self, name: str) -> int | None:
        return self._rows.get(name)

    def report(self, row: int) -> Report:
        """The last report of the device, for the store."""
        return Report(
            last_seen=self._last_seen_at[row],
            seq=self._seq_at[row],
            protocol=self._protocol_at[row],
            models=self.models.reports(row),
        )

    def restore(self, row: int, report: Report) -> None:
        """Load a report that ``report`` returned, possibly in another process."""
        self._set_models(row, *self.models.intern(row, report.models, full=True))
        self._last_seen_at[row] = report.last_seen
        self._protocol_at[row] = report.protocol
        if report.protocol not in (NOT_REPORTED, PROTOCOL):
            self.has_older_agents = True
        self._seq_at[row] = report.seq if report.seq <= SEQ_MAX else 0
        self._changed_at[row] = 0
        self.facts_version += 1

    def name(self, row: int) -> str:
        return self._names[row]

    def names(self, rows: Rows) -> tuple[str, ...]:
        return tuple(self._names[row] for row in rows.tolist())

    def labels(self, row: int) -> Mapping[str, str]:
        return self._label_sets[self._labels_at[row]]

    def profile(self, row: int) -> str:
        return self._kits[self._kit_at[row]].profile

    def protocol(self, row: int) -> int:
        """The protocol version that the agent sent last. NOT_REPORTED before the first check-in."""
        return self._protocol_at[row]

    def last_seq(self, row: int) -> int:
        return self._seq_at[row]

    def last_seen(self, row: int) -> float | None:
        """Time of the last check-in, in seconds since the epoch. None before the first check-in."""
        return self._last_seen_at[row] or None

    def online(self, row: int, now: float) -> bool:
        """True if the device checked in within the last ``offline_after_s``."""
        seen = self._last_seen_at[row]
        return seen > 0 and now - seen <= self.offline_after_s

    def all_online(self, now: float) -> Mask:
        """``online`` for each row."""
        seen = self._last_seen[: len(self)]
        online: Mask = (seen > 0) & (now - seen <= self.offline_after_s)
        return online

    def set_of(self, row: int) -> ReleaseSet:
        """The release set of the device."""
        return self._sets[self._set_at[row]]

    def numbers(self, row: int) -> frozenset[int]:
        """The numbers of all releases on the device."""
        return self._sets[self._set_at[row]].numbers

    def has_only_another(self, row: int, model: str) -> bool:
        """True if the agent has one model, and that is another one: it must not be replaced."""
        if not self.has_older_agents:
            return False
        return has_one_model(self._protocol_at[row]) and self.set_of(row).has_other(model)

    def hash(self, row: int) -> int:
        return self._hash_at[row]

    def label_id(self, row: int) -> int:
        return self._labels_at[row]

    def kit_id(self, row: int) -> int:
        return self._kit_at[row]

    def traits(self, row: int) -> tuple[int, int, int]:
        """The numbers of the label set, the kit and the release set of the device."""
        return self._labels_at[row], self._kit_at[row], self._set_at[row]

    # All devices, in columns. The columns are views: do not write to them, and do not keep them.

    def all_have_only_another(self, rows: Rows, model: str) -> Mask:
        """``has_only_another`` for each of the ascending ``rows``."""
        if not self.has_older_agents:
            return np.zeros(len(rows), np.bool_)
        mask = all_with_one_model(gather(self._protocol, rows))
        return mask & self.models.all_have_other(rows, model)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        return self._hash[: len(self)]

    @property
    def label_ids(self) -> npt.NDArray[np.uint32]:
        return self._labels[: len(self)]

    @property
    def kit_ids(self) -> npt.NDArray[np.uint32]:
        return self._kit[: len(self)]

    @property
    def protocols(self) -> npt.NDArray[np.uint8]:
        return self._protocol[: len(self)]

    @property
    def changed(self) -> npt.NDArray[np.uint8]:
        """1 for a device whose first check-in, release or phase is not stored yet.

        A shell with a store writes 0 once it has stored ``report``.
        """
        return self._changed[: len(self)]

    def silent_longer(self, rows: Rows, now: float, than_s: float) -> Mask:
        """True for each row without a check-in for more than ``than_s`` seconds.

        All False until this process has listened for that long.
        """
        if not now - self.listening_since > than_s:
            return np.zeros(len(rows), np.bool_)
        return np.greater(now - gather(self._last_seen, rows), than_s)

    def ever_observed(self, rows: Rows) -> Mask:
        """True for each row that has ever checked in."""
        return np.greater(gather(self._last_seen, rows), 0)

    def silent_since(self, rows: Rows, since: float) -> Mask:
        """True for each row without a check-in since ``since``, or since this process listens.

        The later of the two times counts.
        """
        return np.less(self._last_seen[rows], max(since, self.listening_since))

    def label_set(self, number: int) -> Mapping[str, str]:
        """The label set with this number."""
        return self._label_sets[number]

    def matches(self, selector: Selector, number: int) -> bool:
        """True if the selector matches the label set with this number. No removed device does."""
        return number != self._removed_id and selector.matches(self._label_sets[number])

    def all_matching(self, selector: Selector) -> Mask:
        """``matches`` for each label set."""
        mask = self._label_index.matching(selector)
        if self._removed_id is not None:
            mask[self._removed_id] = False
        return mask

    def labels_in_use(self) -> list[Mapping[str, str]]:
        """The label sets that devices have now."""
        used = np.flatnonzero(np.bincount(self.label_ids)).tolist() if len(self) else []
        return [self._label_sets[number] for number in used if number != self._removed_id]

    def kit(self, number: int) -> Kit:
        """The kit with this number."""
        return self._kits[number]

    @property
    def kit_count(self) -> int:
        return len(self._kits)

    @property
    def label_set_count(self) -> int:
        return len(self._label_sets)

    @property
    def label_keys(self) -> frozenset[str]:
        """Every label key that any device has, or had."""
        return frozenset(self._label_keys)

    def selected(self, selector: Selector) -> Mask:
        """One truth value per row: whether the selector matches the device."""
        return self.all_matching(selector)[self.label_ids] if len(self) else np.zeros(0, np.bool_)

    def with_kit(self, has: Callable[[Kit], bool]) -> Mask:
        """One truth value per row: whether the device's kit ``has`` a property."""
        by_kit = np.fromiter(map(has, self._kits), np.bool_)
        return by_kit[self.kit_ids] if len(self) else np.zeros(0, np.bool_)

    def running(self, runs: Runs) -> Mask:
        """One truth value per row: whether the device runs the model, or this release of it."""
        rows = np.arange(len(self))
        if runs.release is None:
            return self.models.all_have(rows, runs.model)
        return self.models.all_run(rows, self.models.release_id(runs.model, runs.release))

    def figures(self, now: float) -> FleetFigures:
        """Counts over the whole fleet. Online: a check-in within the last ``offline_after_s``."""
        online = self.all_online(now)
        by_profile = dict.fromkeys((kit.profile for kit in self._kits), 0)
        kits = self.kit_ids
        if self._removed_id is not None:
            kits = kits[self.label_ids != self._removed_id]
        for number, count in enumerate(np.bincount(kits).tolist()):
            by_profile[self._kits[number].profile] += count
        by_release, by_phase, unknown_sets = self.models.count(online)
        on_release: dict[str, dict[str, int]] = {}
        for number, count in by_release.items():
            if (named := self.models.release_named(number)) is not None:
                on_release.setdefault(named[0], {})[named[1]] = count
        return FleetFigures(
            total=self.device_count,
            online=int(np.count_nonzero(online)),
            by_profile={profile: count for profile, count in by_profile.items() if count},
            by_phase={phase.value: count for phase, count in by_phase.items()},
            on_release=on_release,
            unknown_sets=unknown_sets,
            serving=self.serving.figures(lambda row: bool(online[row])),
            disk_faults=self.disk_faults.counts(),
        )

    def _set_models(self, row: int, number: int, activity: int) -> None:
        """Write the release set and the activity of the device."""
        before = self._set_at[row]
        self.models.write(row, number, activity)
        self._changed_at[row] = 1
        if number != before and self.models.model_count > 1:
            sets = self._sets
            others = sets[before].by_model.keys() != sets[number].by_model.keys()
            if others and has_one_model(self._protocol_at[row]):
                self.facts_version += 1  # eligible for other rollouts

    def _kit_id(self, kit: Kit) -> int:
        number = self._kit_ids.get(kit)
        if number is None:
            number = self._kit_ids[kit] = len(self._kits)
            self._kits.append(kit)
            self.limits_memory = self.limits_memory or kit.models_memory_mib > 0
        return number

    def _label_id(self, labels: Mapping[str, str]) -> int:
        key = tuple(sorted(labels.items()))
        number = self._label_ids.get(key)
        if number is None:
            number = self._label_ids[key] = len(self._label_sets)
            self._label_sets.append(MappingProxyType(dict(key)))
            self._label_index.add(labels)
            self._label_keys.update(labels)
        return number

    def _grow(self, capacity: int) -> None:
        self._hash = longer(self._hash, capacity)
        self._last_seen = longer(self._last_seen, capacity)
        self._seq = longer(self._seq, capacity)
        self._labels = longer(self._labels, capacity)
        self._kit = longer(self._kit, capacity)
        self._protocol = longer(self._protocol, capacity)
        self.models.grow(capacity)
        self._set_at, self._activity_at = self.models.set_at, self.models.activity_at
        self._changed = longer(self._changed, capacity)
        # Views of the same memory: an item costs a third of the time of an array item.
        self._hash_at = self._hash.data
        self._last_seen_at = self._last_seen.data.cast("B").cast("d")
        self._seq_at = self._seq.data
        self._labels_at = self._labels.data
        self._kit_at = self._kit.data
        self._protocol_at = self._protocol.data
        self._changed_at = self._changed.data


def all_with_one_model(protocols: npt.NDArray[np.uint8]) -> Mask:
    """``has_one_model`` for each of ``protocols``."""
    found: Mask = (protocols >= OLDEST) & (protocols <= ONE_MODEL)
    return found


def _kept(protocol: int) -> int:
    """The version as the column keeps it."""
    return protocol if NOT_REPORTED < protocol < NO_PROTOCOL else NO_PROTOCOL
