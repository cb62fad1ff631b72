"""Release sets and activities: what the columns say is what the devices reported, always."""

from random import Random

import numpy as np
import pytest

from edgefleet.protocol.device import CheckIn, ModelReport, Phase, digest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet import interned
from edgefleet.rollout.fleet.device_models import DeviceModels
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.interned import Interned
from edgefleet.rollout.fleet.reports import PHASE_CODES
from support.fleets import memory_hub
from support.many_models import ManyModels, of, publish

MODELS = ("classifier", "detector", "digits")
DEVICES = 30
ROWS = np.arange(DEVICES)


class Reported:
    """A fleet, and beside it what its devices reported last."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.fleet = Fleet(listening_since=0, offline_after_s=60)
        for row in range(DEVICES):
            self.fleet.add(f"d{row}", "generic_x86", {})
        self.truth: list[dict[str, ModelReport]] = [{} for _ in range(DEVICES)]
        self.seq = 0

    def report(self, releases: int) -> None:
        """One device reports one model, or all of them."""
        row, full = self.chance.randrange(DEVICES), self.chance.random() < 0.2
        count = self.chance.randrange(len(MODELS) + 1) if full else 1
        reports = tuple(
            ModelReport(
                model=model,
                release=self.chance.choice((None, *map(str, range(releases)))),
                phase=self.chance.choice((Phase.IDLE, Phase.IDLE, *Phase)),
            )
            for model in self.chance.sample(MODELS, count)
        )
        if full:
            self.truth[row] = {}
        self.truth[row] |= {one.model: one for one in reports}
        self.seq += 1
        check_in = CheckIn(
            protocol=PROTOCOL, seq=self.seq, models=reports, full=full, digest=self.digest(row)
        )
        self.fleet.observe_models(row, 1.0 + self.seq, check_in)

    def on_device(self, row: int) -> tuple[ModelReport, ...]:
        return tuple(one for _, one in sorted(self.truth[row].items()) if one.is_on_device)

    def digest(self, row: int) -> int:
        return digest(self.on_device(row))

    def compare(self) -> None:
        models = self.fleet.models
        for row in range(DEVICES):
            assert models.reports(row) == self.on_device(row)
            assert not models.digest_differs(row, self.digest(row))
        for model in MODELS:
            mine = [self.truth[row].get(model, ModelReport(model=model)) for row in range(DEVICES)]
            phases = [PHASE_CODES[one.phase] for one in mine]
            assert models.all_phases(ROWS, model).tolist() == phases
            numbers = [
                0 if one.release is None else models.release_id(model, one.release) for one in mine
            ]
            assert models.all_releases(ROWS, model).tolist() == numbers
            for number in {*numbers} - {0}:
                runs = [number == one for one in numbers]
                assert models.all_run(ROWS, number).tolist() == runs
                assert [number in self.fleet.numbers(row) for row in range(DEVICES)] == runs
            others = [
                any(one.release and one.model != model for one in self.truth[row].values())
                for row in range(DEVICES)
            ]
            assert models.all_have_other(ROWS, model).tolist() == others
            busy = [
                row
                for row in range(DEVICES)
                if any(
                    one.phase is Phase.TRIAL and one.model != model
                    for one in self.truth[row].values()
                )
            ]
            trial = frozenset({Phase.TRIAL})
            assert models.busy_elsewhere(model, trial).tolist() == busy
            every = np.arange(DEVICES)
            assert np.flatnonzero(models.all_busy_elsewhere(every, model, trial)).tolist() == busy


def note_renumbering(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that has an entry once a table has been numbered anew."""
    found: list[int] = []
    right = getattr(Interned, name := "_number_anew")

    def number_anew(self: Interned[object], column: np.ndarray) -> None:
        found[:] = [1]
        right(self, column)

    patch.setattr(Interned, name, number_anew)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_columns_say_what_was_reported_however_often_they_are_numbered_anew(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interned, "CAP", 3 * DEVICES)  # all devices may differ, and no more
    renumbered = note_renumbering(monkeypatch)
    reported = Reported(seed)
    for number in range(2_000):
        reported.report(releases=5)
        if number % 50 == 0:
            reported.compare()
    assert renumbered == [1]


def test_a_stale_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what is cached by number outlives the numbers."""
    forget = "_forget_numbers"
    right = getattr(DeviceModels, forget)

    def at_first(self: DeviceModels) -> None:
        if not hasattr(self, "_digests"):
            right(self)

    monkeypatch.setattr(DeviceModels, forget, at_first)
    with pytest.raises(AssertionError):
        test_columns_say_what_was_reported_however_often_they_are_numbered_anew(0, monkeypatch)


def test_values_keep_their_numbers_until_the_table_has_doubled() -> None:
    table: Interned[str] = Interned("", "fixed")
    column = np.zeros(1_000, np.uint16)
    for number in range(2_000):  # a value for each row in turn, so 1,000 are live
        column[number % 1_000] = table.number(f"v{number}", column)
    assert (table.version, len(table)) == (1, 1_980)
    assert [table.values[number] for number in column.tolist()] == [
        f"v{number}" for number in range(1_000, 2_000)
    ]
    assert table.values[:2] == ["", "fixed"]


def test_a_full_table_is_not_numbered_anew_for_each_new_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interned, "CAP", 8)
    table: Interned[int] = Interned(-1)
    column = np.arange(8, dtype=np.uint16)
    for value in range(7):
        assert table.number(value, column) == value + 1
    assert [table.number(value, column) for value in range(100, 600)] == [None] * 500
    assert table.version == 8, "one attempt for 64 values"
    assert table.number(3, column) == 4, "what it has it keeps"


def test_loadout_table_full_device_is_shown_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose release set does not fit is shown, keeps its place, and is offered nothing."""
    monkeypatch.setattr(interned, "CAP", 5)  # none, unknown and three sets
    hub = memory_hub(4)
    publish(hub, "detector", "1", "2", "3", "4", "5")
    hub.start(of("detector", "4"))
    devices = [ManyModels(hub, row) for row in range(4)]
    for device, release in zip(devices, "1235", strict=True):
        device.has("detector", release)
        device.check_in()
    last = devices[3]
    for _ in range(3):
        assert last.check_in().offers == ()
    assert (last.answer.wants_models, last.lists) == (False, 1), "it is asked for its list once"
    assert [len(device.check_in().offers) for device in devices] == [1, 1, 1, 0]
    (wait,) = hub.engine.why_device(3, hub.now).waits
    assert wait.code is WaitCode.UNKNOWN_SET
    assert hub.engine.fleet.online(3, hub.now)
    parts = hub.engine.batch.answers(ROWS[:4], hub.now)
    assert [told.tolist() for offers, told in parts if not offers] == [[3]]
    for device in devices[1:3]:  # makes room
        device.has("detector", "1")
        device.check_in()
    for number in range(65):  # the table looks for room at times only
        devices[0].has("detector", "45"[number % 2])
        devices[0].check_in()
        devices[0].check_in()
    assert last.check_in().wants_models
    assert len(last.check_in().offers) == 1


def test_model_named_but_not_published_counts_as_none() -> None:
    """The hub drops unpublished names; the digest of the full list is accepted all the same."""
    fleet = Fleet(listening_since=0, offline_after_s=60)
    fleet.add("d0", "generic_x86", {})
    known = ModelReport(model="detector", release="1")
    foreign = ModelReport(model="mine", release="9")
    both = digest((known, foreign))
    fleet.observe_models(0, 1.0, CheckIn(protocol=PROTOCOL, seq=1, models=(known,), digest=both))
    assert fleet.models.digest_differs(0, both)
    fleet.observe_models(
        0, 2.0, CheckIn(protocol=PROTOCOL, seq=2, models=(known,), digest=both, full=True)
    )
    assert not fleet.models.digest_differs(0, both)
    assert fleet.models.reports(0) == (known,)
    assert fleet.models.digest_differs(0, both + 1)
    fleet.models.forget_digests()
    assert fleet.models.digest_differs(0, both), "what was published since may be in its list"


def test_more_models_than_a_device_may_have_are_an_unknown_set() -> None:
    fleet = Fleet(listening_since=0, offline_after_s=60)
    fleet.add("d0", "generic_x86", {})
    for number in range(17):
        report = ModelReport(model=f"m{number:02}", release="1")
        fleet.observe_models(0, 1.0, CheckIn(protocol=PROTOCOL, seq=1, models=(report,)))
        assert fleet.set_of(0).is_known == (number < 16)


def test_columns_are_the_same_after_a_copy_into_another_fleet() -> None:
    before, after = Reported(1), Fleet(listening_since=0, offline_after_s=60)
    for _ in range(300):
        before.report(releases=4)
    for row in range(DEVICES):
        after.add(f"d{row}", "generic_x86", {})
    for model in reversed(MODELS):  # other release numbers than before
        after.models.release_id(model, "3")
    after.load_reports(before.fleet.copy_reports())
    before.fleet = after
    before.compare()
    one_by_one = Fleet(listening_since=0, offline_after_s=60)
    for row in range(DEVICES):
        one_by_one.add(f"d{row}", "generic_x86", {})
        one_by_one.restore(row, after.report(row))
    before.fleet = one_by_one
    before.compare()
    assert [one_by_one.report(row) for row in range(DEVICES)] == [
        after.report(row) for row in range(DEVICES)
    ]


def test_figures_count_each_model_and_each_device_once_by_phase() -> None:
    hub = memory_hub(3)
    publish(hub, "detector", "1")
    publish(hub, "digits", "2")
    for row in range(3):
        device = ManyModels(hub, row)
        device.has("detector", "1", Phase.TRIAL if row == 0 else Phase.IDLE)
        device.has("digits", "2" if row else None, Phase.FETCHING if row < 2 else Phase.IDLE)
        device.check_in()
    figures = hub.engine.fleet.figures(hub.now)
    assert figures.on_release == {"detector": {"1": 3}, "digits": {"2": 2}}
    assert {phase: count for phase, count in figures.by_phase.items() if count} == {
        "trial": 1, "fetching": 1, "idle": 1,
    }  # fmt: skip
