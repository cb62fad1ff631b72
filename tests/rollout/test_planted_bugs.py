"""The checks of a fleet detect bugs that are planted in the engine, one at a time."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from edgefleet.protocol.rollout import Evidence, GateSpec, LateFailures, Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout import active, census, desired, engine
from edgefleet.rollout.census import PendingReverts
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.fleet import cut
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.why import rollout as why
from edgefleet.testing import FakeFleet, Fate
from support.fleets import CheckedFleet
from support.invariants import BrokenError
from support.plans import spec

Patch = pytest.MonkeyPatch


def cut_off_by_one(patch: Patch) -> None:
    right = cut.wanted
    patch.setattr(cut, "wanted", lambda percent, population: right(percent, population) + 1)


def threshold_forgotten(patch: Patch) -> None:
    patch.setattr(Scope, "first", lambda *_: 0)


def percent_rounded_down(patch: Patch) -> None:
    patch.setattr(cut, "wanted", lambda percent, population: int(percent * population / 100))


def report_counted_twice(patch: Patch) -> None:
    right = Ledger.record

    def record(self: Ledger, row: int, *report: object) -> bool:
        fresh = right(self, row, *report)
        if not fresh:
            self.counts[self.standing(row)] += 1
        return fresh

    patch.setattr(Ledger, "record", record)


def soak_ignored(patch: Patch) -> None:
    right = gate.judge

    def judge(counted: Evidence, wanted: GateSpec, **how: object) -> object:
        return right(counted, replace(wanted, soak_s=0), **how)

    made = FakeFleet.__init__
    patch.setattr(made, "__kwdefaults__", {**made.__kwdefaults__, "gate": judge})


def offline_counted_as_healthy(patch: Patch) -> None:
    def wrong(counted: Evidence, spec: GateSpec) -> Evidence:
        changed = replace(counted, healthy=counted.healthy + counted.offline, offline=0)
        return gate.weigh(changed, spec)

    patch.setattr(census, "gate", SimpleNamespace(weigh=wrong, count_missing=gate.count_missing))


def silence_forgotten(patch: Patch) -> None:
    def wrong(counted: Evidence, spec: GateSpec) -> Evidence:
        failed, in_trial = counted.failed - counted.silent, counted.in_trial + counted.silent
        return gate.weigh(
            replace(counted, failed=failed, silent=0, in_trial=in_trial, late=LateFailures()), spec
        )

    patch.setattr(census, "gate", SimpleNamespace(weigh=wrong, count_missing=gate.count_missing))


def failed_release_offered_again(patch: Patch) -> None:
    patch.setattr(desired.Desired, "is_excluded", lambda *_: False)
    patch.setattr(active, "EXCLUDED", frozenset[DeviceStanding]())


def revert_believed_done_at_once(patch: Patch) -> None:
    patch.setattr(engine, "find_owing", lambda *_: PendingReverts())


def revert_forgets_the_confirmed(patch: Patch) -> None:
    rollout, next_step = desired.Desired.rollout, desired.Desired.next_step

    def kept(self: desired.Desired, row: int, model: str) -> object:
        by = self.withdrawn_by(row, model)
        confirmed = by is not None and by.ledger.standing(row) is DeviceStanding.HEALTHY
        return by if confirmed else None

    def stay(self: desired.Desired, row: int, model: str) -> object:
        stays = kept(self, row, model)
        return Blocked(WaitCode.DONE, "") if stays else next_step(self, row, model)

    patch.setattr(
        desired.Desired,
        "rollout",
        lambda self, row, model: kept(self, row, model) or rollout(self, row, model),
    )
    patch.setattr(desired.Desired, "next_step", stay)


def waits_forgotten(patch: Patch) -> None:
    right = why.explain_rollout
    patch.setattr(why, "explain_rollout", lambda *counted: replace(right(*counted), waits=()))


BUGS = [
    cut_off_by_one,
    threshold_forgotten,
    percent_rounded_down,
    report_counted_twice,
    soak_ignored,
    offline_counted_as_healthy,
    silence_forgotten,
    failed_release_offered_again,
    revert_believed_done_at_once,
    revert_forgets_the_confirmed,
    waits_forgotten,
]


def nothing(_patch: Patch) -> None:
    """The engine without a planted bug."""


def check_the_story() -> None:
    """A good release, a bad one and a silent one, with some devices offline."""
    fleet = CheckedFleet(251, twice=True, tick_s=0.5)  # gates are evaluated between check-ins
    for device in fleet.by_row:
        device.fetch_s = device.row % 4
        if device.row % 9 == 0:
            device.offline = True
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 10, 100)))
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if device.row % 5 == 0 else Fate.HEALTHY
    ))  # fmt: skip
    bad = fleet.start(spec("2", 20, 100))
    view = fleet.settle(bad, 40)
    if view.status is Status.RUNNING:  # too few devices failed for a significant result
        fleet.command(bad, Verb.REVERT)
        view = fleet.finish(bad)
    if view.status is not Status.REVERTED:
        raise BrokenError(f"the bad release ended {view.status}")
    fleet.publish("3", fate=lambda device: (
        Fate.SILENT if device.row % 4 == 1 else Fate.HEALTHY
    ))  # fmt: skip
    view = fleet.finish(fleet.start(spec("3", 20, 100)))
    if view.status is not Status.REVERTED:
        raise BrokenError(f"the silent release ended {view.status}")


def test_the_story_holds_without_a_bug():
    check_the_story()


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_caught(plant: Callable[[Patch], None], monkeypatch: Patch):
    plant(monkeypatch)
    with pytest.raises(BrokenError):
        check_the_story()
