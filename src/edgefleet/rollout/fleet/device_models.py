"""The models on each device: columns with the number of its release set and of its activity."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import ModelReport, Phase, digest
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.columns import Mask, Rows, gather, longer
from edgefleet.rollout.fleet.interned import Interned, Numbers
from edgefleet.rollout.fleet.release_sets import (
    ANY_MODEL,
    NO_RELEASES,
    UNKNOWN_SET,
    Activity,
    ReleaseSet,
    phase_of,
    with_reports,
)
from edgefleet.rollout.fleet.reports import PHASE_CODES, ReportedModels
from edgefleet.rollout.limits import REPORTS_CACHED

NOTHING: Final = 0  # the release number of a model that is not on the device

_UNKNOWN: Final = 1
_LONG: Final = 4096  # from here on a comparison of the column costs less than a look-up
_COMPARED: Final = 8  # and so do so many comparisons
_IDLE: Final = Phase.IDLE
_ORDER: Final = {phase: place for place, phase in enumerate(Phase)}
Digests = npt.NDArray[np.uint32]
_Contents = Mapping[str, tuple[str | None, Phase]]


class DeviceModels:
    """The releases on each device, and the phase of each model.

    A release has a number, which never changes. The numbers of sets and activities may change with
    each ``intern``, so no other class keeps them. ``sets`` has the sets by number. The fleet reads
    ``set_at``, ``activity_at`` and ``digest_at``, an item of the columns for each row, because one
    more call in each check-in costs too much. ``digest_at`` has the digest that a check-in of the
    device should have. ``known_lists`` has the numbers for reports of one model.
    """

    def __init__(self) -> None:
        self._releases: list[tuple[str, str] | None] = [None]
        self._release_ids: dict[tuple[str, str], int] = {}
        self._models: set[str] = set()
        self._sets: Interned[ReleaseSet] = Interned(NO_RELEASES, UNKNOWN_SET)
        self.sets = self._sets.values
        self.known_lists: dict[tuple[str | None, str | None, Phase], tuple[int, int]] = {}
        self._activities: Interned[Activity] = Interned(())
        self._alone: list[int] = []  # by release, the number of the set that has it alone
        self._set = np.zeros(0, np.uint16)
        self._activity = np.zeros(0, np.uint16)
        self._digest: Digests = np.zeros(0, np.uint32)
        self._kept_in_part: set[int] = set()  # rows with the digest of a list that is kept in part
        self._forget_numbers()

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._set = longer(self._set, capacity)
        self._activity = longer(self._activity, capacity)
        self._digest = longer(self._digest, capacity)
        self.set_at = self._set.data
        self.activity_at = self._activity.data
        self.digest_at = self._digest.data

    # Releases.

    @property
    def model_count(self) -> int:
        """The number of models that have a release."""
        return len(self._models)

    def release_id(self, model: str, release: str) -> int:
        """The number of a release."""
        key = (model, release)
        number = self._release_ids.get(key)
        if number is None:
            number = self._release_ids[key] = len(self._releases)
            self._releases.append(key)
            self._models.add(model)
        return number

    def release_named(self, number: int) -> tuple[str, str] | None:
        """Model and release. None for NOTHING."""
        return self._releases[number]

    # One device.

    def phase(self, row: int, model: str) -> Phase:
        """The phase of the model on the device."""
        activity = self.activity_at[row]
        return phase_of(self._activities.values[activity], model) if activity else _IDLE

    def activity(self, row: int) -> Activity:
        """The activity of the device."""
        return self._activities.values[self.activity_at[row]]

    def reports(self, row: int) -> tuple[ModelReport, ...]:
        """The models on the device, sorted. A model that the device has not named: ``""``."""
        return _reports(self._contents(self.set_at[row], self.activity_at[row]))

    # Reports of one device.

    def intern(self, row: int, reports: tuple[ModelReport, ...], *, full: bool) -> tuple[int, int]:
        """The numbers of set and activity for a device after reports of models.

        With ``full`` they are all models. Without it nothing changes if the set of the device is
        unknown. The digest differs then, so the device sends all models next.
        """
        number, activity = self.set_at[row], self.activity_at[row]
        if number == _UNKNOWN and not full:
            return number, activity
        key = (-1 if full else number << 16 | activity, reports)
        found = self._applied.get(key)
        if found is None:
            before = {} if full else self._contents(number, activity)
            found = self._intern(with_reports(before, reports))
            if len(self._applied) >= REPORTS_CACHED:
                self._applied.clear()
            number, activity = self.set_at[row], self.activity_at[row]
            key = (key[0] if full else number << 16 | activity, reports)  # may be numbered anew
            if found[0] != _UNKNOWN:
                self._applied[key] = found
        return found

    def write(self, row: int, number: int, activity: int) -> None:
        """Write the numbers of set and activity of a device."""
        self.set_at[row] = number
        self.activity_at[row] = activity
        self.digest_at[row] = self._digest_of(number << 16 | activity)

    def digest_differs(self, row: int, sent: int) -> bool:
        """True if the device has other models than this table, and must send all of them."""
        return self.digest_at[row] != sent

    def accept_digest(self, row: int, sent: int) -> None:
        """Accept the digest of a full list that this table may have in part only.

        It has no unpublished models and releases, and no set beyond its bound.
        """
        if self.digest_at[row] != sent:
            self.digest_at[row] = sent
            self._kept_in_part.add(row)

    def forget_digests(self) -> None:
        """Ask for the lists again that this table has in part only: a release was published."""
        if self._kept_in_part:
            self._write_digests(np.array(sorted(self._kept_in_part)))
            self._kept_in_part.clear()

    # All devices.

    def all_digests_differ(self, rows: Rows, sent: Digests | int) -> Mask:
        """``digest_differs`` for each of the ascending ``rows``. ``sent`` has one or one a row."""
        mask: Mask = gather(self._digest, rows) != sent
        return mask

    def write_reports(self, rows: Rows, reports: tuple[ModelReport, ...], *, full: bool) -> None:
        """``intern`` for many devices with the same reports, and write the numbers."""
        keys = self._keys(rows)
        alike = [np.arange(len(rows))]
        if not full and (keys != keys[0]).any():
            alike = [np.flatnonzero(keys == key) for key in np.unique(keys).tolist()]
        for places in alike:  # places, not numbers: the next ``intern`` may change every number
            mine = rows[places]
            number, activity = self.intern(int(mine[0]), reports, full=full)
            self._set[mine] = number
            self._activity[mine] = activity
            self._digest[mine] = self._digest_of(number << 16 | activity)

    def accept_digests(self, rows: Rows, sent: int) -> None:
        """``accept_digest`` for many devices that sent the same list."""
        for row in rows[self._digest[rows] != sent].tolist():
            self.accept_digest(row, sent)

    def write_numbers(self, rows: Rows, releases: npt.NDArray[np.uint32]) -> bool:
        """Replace the models of idle devices, each by one release.

        True if the set of models of a device may have changed.
        """
        if len(self._alone) != len(self._releases):
            for _ in range(2):  # adding one set may change the number of the one before
                self._alone = [
                    self._set_number(self._set_of_names(() if named is None else (named,)))
                    for named in self._releases
                ]
        return self._write_all(rows, np.array(self._alone, np.uint16)[releases], 0)

    def write_all_one(
        self, rows: Rows, model: str | None, release: str | None, phase: Phase
    ) -> bool:
        """Replace the models of many devices by one. True if the set of models may have changed."""
        key = (model, release, phase)
        return self._write_all(rows, *(self.known_lists.get(key) or self.intern_one(*key)))

    def set_numbers(self, count: int) -> Numbers:
        """The numbers of the sets of the first ``count`` rows. Do not write to or keep them."""
        return self._set[:count]

    def all_run(self, rows: Rows, release: int) -> Mask:
        """For each of the ascending ``rows``: True if the device runs the release."""
        answers = self._with_release.get(release)
        if answers is None:
            answers = self._with_release[release] = self._of_sets(
                lambda one: release in one.numbers
            )
        return _looked_up(answers.all(), gather(self._set, rows))

    def all_have(self, rows: Rows, model: str) -> Mask:
        """For each of the ascending ``rows``: True if the device has a release of the model."""
        answers = self._of_sets(lambda one: model in one.by_model)
        return _looked_up(answers.all(), gather(self._set, rows))

    def all_have_other(self, rows: Rows, model: str) -> Mask:
        """For each of the ascending ``rows``: True if the device has another model."""
        answers = self._with_other.get(model)
        if answers is None:
            answers = self._with_other[model] = self._of_sets(lambda one: one.has_other(model))
        return _looked_up(answers.all(), gather(self._set, rows))

    def all_unknown(self, rows: Rows) -> Mask:
        """For each of the ascending ``rows``: True if the set of the device is unknown."""
        return np.equal(gather(self._set, rows), _UNKNOWN)

    def all_phases(self, rows: Rows, model: str) -> npt.NDArray[np.uint8]:
        """The code of the phase of the model, for each of the ascending ``rows``."""
        answers = self._phases.get(model)
        if answers is None:
            values = self._activities.values
            answers = self._phases[model] = Answers(
                lambda number: PHASE_CODES[phase_of(values[number], model)], lambda: len(values)
            )
        return answers.codes()[gather(self._activity, rows)]

    def in_phase(self, count: int, phase: Phase) -> Mask:
        """For each of the first ``count`` rows: True if its model that is furthest is in it."""
        each = (furthest(activity) is phase for activity in self._activities.values)
        return np.fromiter(each, np.bool_, len(self._activities))[self._activity[:count]]

    def all_releases(self, rows: Rows, model: str) -> npt.NDArray[np.uint32]:
        """The number of the release of the model, for each of the ascending ``rows``."""
        by_set = np.fromiter(
            (one.by_model.get(model, NOTHING) for one in self._sets.values), np.uint32
        )
        return by_set[gather(self._set, rows)]

    def busy_elsewhere(self, model: str, phases: frozenset[Phase]) -> Rows:
        """The rows with another model in one of ``phases``, ascending."""
        return np.flatnonzero(_looked_up(self._busy_elsewhere(model, phases), self._activity))

    def all_busy_elsewhere(self, rows: Rows, model: str, phases: frozenset[Phase]) -> Mask:
        """For each of the ascending ``rows``: True if another model is in one of ``phases``."""
        return _looked_up(self._busy_elsewhere(model, phases), gather(self._activity, rows))

    def _busy_elsewhere(self, model: str, phases: frozenset[Phase]) -> Mask:
        """For each activity: True if another model is in one of ``phases``."""
        each = (
            any(phase in phases and named not in (model, ANY_MODEL) for named, phase in activity)
            for activity in self._activities.values
        )
        return np.fromiter(each, np.bool_, len(self._activities))

    def count(self, selected: Mask) -> tuple[dict[int, int], dict[Phase, int], int]:
        """Number of selected devices by release number, and by the phase that is furthest.

        The last number counts the devices whose set is unknown.
        """
        by_release: dict[int, int] = {}
        sets = np.bincount(self._set[: len(selected)][selected], minlength=_UNKNOWN + 1)
        for number in np.flatnonzero(sets).tolist():
            for release in self._sets.values[number].numbers:
                by_release[release] = by_release.get(release, 0) + int(sets[number])
        by_phase = dict.fromkeys(Phase, 0)
        activities = np.bincount(self._activity[: len(selected)][selected])
        for number in np.flatnonzero(activities).tolist():
            by_phase[furthest(self._activities.values[number])] += int(activities[number])
        return dict(sorted(by_release.items())), by_phase, int(sets[_UNKNOWN])

    def copy(self, count: int) -> ReportedModels:
        """The columns of the first ``count`` rows and their tables, for ``load``."""
        sets = tuple(
            tuple(filter(None, map(self.release_named, sorted(one.numbers))))
            for one in self._sets.values
        )
        return ReportedModels(
            self._set[:count].copy(),
            self._activity[:count].copy(),
            sets,
            tuple(self._activities.values),
        )

    def load(self, kept: ReportedModels) -> None:
        """Load the result of ``copy``. The numbers of releases may differ from those of then."""
        self._sets.replace([self._set_of_names(named) for named in kept.sets[_UNKNOWN + 1 :]])
        self._activities.replace(list(kept.activities[1:]))
        self._set[: len(kept.set)] = kept.set
        self._activity[: len(kept.activity)] = kept.activity
        self._forget_numbers()
        self._write_digests(np.arange(len(kept.set)))

    # Numbers.

    def _write_all(self, rows: Rows, sets: Numbers | int, activity: int) -> bool:
        other = len(self._models) > 1 and bool((self._set[rows] != sets).any())
        self._set[rows] = sets
        self._activity[rows] = activity
        self._write_digests(rows)
        return other

    def intern_one(self, model: str | None, release: str | None, phase: Phase) -> tuple[int, int]:
        """The numbers of set and activity for a full list of one model."""
        named = model is not None and release is not None
        report = ModelReport(
            model=model if model is not None else ANY_MODEL,
            release=release if named else None,
            phase=phase,
        )
        found = self._intern(with_reports({}, (report,)))
        if len(self.known_lists) >= REPORTS_CACHED:
            self.known_lists.clear()
        if found[0] != _UNKNOWN:
            self.known_lists[model, release, phase] = found
        return found

    def _intern(self, contents: _Contents) -> tuple[int, int]:
        """The numbers of the set and of the activity."""
        if len(contents) > MODELS_PER_DEVICE:
            return _UNKNOWN, 0
        busy = tuple((model, at[1]) for model, at in contents.items() if at[1] is not _IDLE)
        version = self._activities.version
        activity = self._activities.number(busy, self._activity)
        if self._activities.version != version:
            self._forget_numbers()
        if activity is None:
            return _UNKNOWN, 0
        releases = ((model, at[0]) for model, at in contents.items() if at[0] is not None)
        return self._set_number(self._set_of_names(releases)), activity

    def _set_number(self, value: ReleaseSet) -> int:
        version = self._sets.version
        number = self._sets.number(value, self._set)
        if self._sets.version != version:
            self._forget_numbers()
            if number is not None:  # there is room again for the devices with an unknown set
                self.forget_digests()
        return _UNKNOWN if number is None else number

    def _set_of_names(self, named: Iterable[tuple[str, str]]) -> ReleaseSet:
        return ReleaseSet(
            tuple(sorted((model, self.release_id(model, release)) for model, release in named))
        )

    def _contents(self, number: int, activity: int) -> dict[str, tuple[str | None, Phase]]:
        """Model -> (release, phase), sorted."""
        phases = dict(self._activities.values[activity])
        releases: dict[str, str] = {}
        for one in self._sets.values[number].numbers:
            named = self._releases[one]
            if named is not None:
                releases[named[0]] = named[1]
        models = sorted({*phases, *releases})
        return {model: (releases.get(model), phases.get(model, _IDLE)) for model in models}

    def _keys(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """The number of the set and that of the activity of each of ``rows``, as one number."""
        return self._set[rows].astype(np.uint32) << np.uint32(16) | self._activity[rows]

    def _digest_of(self, key: int) -> int:
        """The digest of a set and an activity. ``key`` has both numbers."""
        known = self._digests.get(key)
        if known is None:
            contents = self._contents(key >> 16, key & 0xFFFF)
            known = self._digests[key] = digest(_reports(contents))
        return known

    def _write_digests(self, rows: Rows) -> None:
        """Write the digests of ``rows`` anew, from their sets and activities."""
        keys, places = np.unique(self._keys(rows), return_inverse=True)
        digests = [self._digest_of(key) for key in keys.tolist()]
        self._digest[rows] = np.array(digests, np.uint32)[places]

    def _of_sets(self, ask: Callable[[ReleaseSet], bool]) -> Answers:
        values = self._sets.values
        return Answers(lambda number: ask(values[number]), lambda: len(values))

    def _forget_numbers(self) -> None:
        """Drop all that is cached by number: the sets or the activities have new ones."""
        self.known_lists.clear()
        self._alone = []
        self._applied: dict[tuple[int, tuple[ModelReport, ...]], tuple[int, int]] = {}
        self._digests: dict[int, int] = {}
        self._with_release: dict[int, Answers] = {}
        self._with_other: dict[str, Answers] = {}
        self._phases: dict[str, Answers] = {}


def furthest(activity: Activity) -> Phase:
    """The phase of the model that is furthest on its way to a release, or back from it."""
    return max((phase for _, phase in activity), key=_ORDER.__getitem__, default=Phase.IDLE)


def _reports(contents: _Contents) -> tuple[ModelReport, ...]:
    return tuple(
        ModelReport(model=model, release=release, phase=phase)
        for model, (release, phase) in contents.items()
    )


def _looked_up(table: Mask, numbers: Numbers) -> Mask:
    """``table[numbers]``. Many times as fast as that for a long column, if few numbers are true."""
    if len(numbers) < _LONG:
        return table[numbers]
    found = np.flatnonzero(table).astype(numbers.dtype)
    if len(found) > _COMPARED:
        return np.take(table, numbers)
    mask = np.zeros(len(numbers), np.bool_)
    for number in found:
        mask |= numbers == number
    return mask
