"""Classes of devices on which a release fails, on the whole engine: named, and taken back alone."""

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import (
    DeviceClass,
    ExposureSpec,
    GateSpec,
    Rollback,
    RolloutSpec,
    Status,
    TakenBack,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.testing import FakeDevice, Fate
from support.fleets import CheckedFleet, new_device
from support.plans import GATE, spec

DEVICES = 240
EVERY = 12  # each twelfth device is of the class that fails
SMALL = DEVICES // EVERY
OLD_GPU = "g1"


def in_class(device: FakeDevice) -> bool:
    return device.row % EVERY == 5


def fleet_with_classes(devices: int = DEVICES, *, by: str = "profile") -> CheckedFleet:
    """Two profiles, or two values of the label ``gpu``, and three sites."""
    fleet = CheckedFleet()
    for number in range(devices):
        name, site = f"d{number:05d}", f"s{number % 3}"
        is_small = number % EVERY == 5
        if by == "profile":
            fleet.enrol(new_device(name, "jetson_nano" if is_small else "generic_x86", site=site))
        else:
            fleet.enrol(new_device(name, site=site, gpu=OLD_GPU if is_small else "g2"))
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


def plan(
    release: str,
    *percents: float,
    gate: GateSpec = GATE,
    selector: str = "",
    again: str = "",
    follow: bool = False,
) -> RolloutSpec:
    exposure = ExposureSpec(first=10, growth=1.0, ceiling=0.2)
    found = spec(release, *percents, gate=gate, selector=selector, exposure=exposure)
    return replace(found, again=again, follow=follow)


def broken(fleet: CheckedFleet, fate: Fate = Fate.FAILS) -> None:
    fleet.publish("2", fate=lambda device: fate if in_class(device) else Fate.HEALTHY)


def rows_with(fleet: CheckedFleet, rollout: str, kind: OutcomeKind) -> set[int]:
    return {
        one.row
        for one in fleet.outcomes
        if one.outcome.rollout == rollout and one.outcome.kind is kind
    }


def failed_rows(fleet: CheckedFleet, rollout: str) -> set[int]:
    return rows_with(fleet, rollout, OutcomeKind.TRIAL_FAILED)


@pytest.mark.parametrize("fate", [Fate.FAILS, Fate.CRASHES, Fate.REFUSES])
def test_a_class_that_fails_is_named_and_goes_back_alone(fate: Fate) -> None:
    fleet = fleet_with_classes()
    broken(fleet, fate)
    rollout = fleet.start(plan("2", 1, 10, 100))
    view = fleet.finish(rollout)
    assert view.status is Status.COMPLETED
    (part,) = view.taken_back
    assert (part.key, part.value, part.reason) == ("profile", "jetson_nano", "class_failures")
    assert "with profile=jetson_nano that began failed, 0 of the" in part.text
    assert part.text.endswith("5 % allowed."), "it is a test of the built-in gate"
    assert fleet.on_release() == {"1": SMALL, "2": DEVICES - SMALL}
    tried = failed_rows(fleet, rollout) | rows_with(fleet, rollout, OutcomeKind.REFUSED)
    assert 3 <= len(tried) <= 11
    assert all(in_class(fleet.by_row[row]) for row in tried)


def test_devices_of_the_class_that_were_well_go_back_too() -> None:
    fleet = fleet_with_classes()
    fleet.publish(
        "2",
        fate=lambda device: (
            Fate.FAILS if in_class(device) and device.row % (4 * EVERY) != 5 else Fate.HEALTHY
        ),
    )
    rollout = fleet.start(plan("2", 100, gate=replace(GATE, rollback=Rollback.PART)))
    view = fleet.finish(rollout)
    assert view.status is Status.COMPLETED
    assert len(view.taken_back) == 1
    fleet.tick(5)
    assert fleet.on_release() == {"1": SMALL, "2": DEVICES - SMALL}
    back = rows_with(fleet, rollout, OutcomeKind.REVERTED)
    assert all(in_class(fleet.by_row[row]) for row in back)


def test_the_plan_may_take_it_back_from_all() -> None:
    fleet = fleet_with_classes()
    broken(fleet)
    rollout = fleet.start(plan("2", 1, 10, 100, gate=replace(GATE, rollback=Rollback.ALL)))
    view = fleet.finish(rollout)
    assert (view.status, view.reason, view.taken_back) == (Status.REVERTED, "class_failures", ())
    assert "with profile=jetson_nano that began failed" in view.text
    assert fleet.on_release() == {"1": DEVICES}


def test_a_release_that_fails_everywhere_goes_back_from_all() -> None:
    fleet = fleet_with_classes()
    fleet.publish("2", fate=lambda _device: Fate.FAILS)
    rollout = fleet.start(plan("2", 100))
    view = fleet.finish(rollout)
    assert (view.status, view.taken_back) == (Status.REVERTED, ())
    assert fleet.on_release() == {"1": DEVICES}


def test_a_value_of_a_label_is_a_class_only_if_the_plan_names_the_label() -> None:
    fleet = fleet_with_classes(by="gpu")
    broken(fleet)
    first = fleet.start(plan("2", 1, 10, 100, gate=replace(GATE, max_error_rate=0.2)))
    view = fleet.finish(first)
    assert (view.status, view.taken_back) == (Status.COMPLETED, ())
    assert len(failed_rows(fleet, first)) == SMALL, "each of them failed, and no test saw it"
    fleet.publish("3", fate=lambda device: Fate.FAILS if in_class(device) else Fate.HEALTHY)
    gate = replace(GATE, max_error_rate=0.2, classes=("gpu",))
    rollout = fleet.start(plan("3", 1, 10, 100, gate=gate))
    view = fleet.finish(rollout)
    (part,) = view.taken_back
    assert (part.key, part.value) == ("gpu", OLD_GPU)
    assert len(failed_rows(fleet, rollout)) < SMALL


def test_no_more_devices_of_a_class_are_in_trial_than_it_has_earned() -> None:
    fleet = fleet_with_classes(by="gpu")
    fleet.publish("2")
    gate = replace(GATE, confirm_after_s=20, classes=("gpu",))
    waves = (WaveSpec(selector=f"gpu={OLD_GPU}"), WaveSpec(percent=100))
    rollout = fleet.start(replace(plan("2", gate=gate), waves=waves))
    active = fleet.engine.rollout(rollout)
    trials: list[int] = []
    texts: set[str] = set()
    for _ in range(120):
        fleet.tick(1)
        healthy = sum(
            in_class(fleet.by_row[row])
            for row in active.ledger.rows(DeviceStanding.HEALTHY).tolist()
        )
        rows = active.ledger.rows(DeviceStanding.TRIAL).tolist()
        trials.append(sum(in_class(fleet.by_row[row]) for row in rows))
        assert trials[-1] <= max(5, healthy)
        texts |= {
            wait.text
            for device in fleet.by_row
            if in_class(device)
            for wait in fleet.why_device(device.name).waits
            if wait.code is WaitCode.EXPOSURE
        }
    assert 5 in trials, "half of the first 10"
    assert max(trials) >= 8, "it grows with the healthy devices of the class"
    fleet.finish(rollout, at_most_s=600)
    assert fleet.on_release() == {"2": DEVICES}
    assert any(f"In trial with gpu={OLD_GPU}: 5 devices (limit 5)" in text for text in texts)


def test_a_batch_of_starts_is_admitted_like_its_devices_one_by_one() -> None:
    fleet = fleet_with_classes()
    fleet.publish("2")
    rollout = fleet.start(plan("2", 100, gate=replace(GATE, classes=("site",))))
    active = fleet.engine.rollout(rollout)
    rng = np.random.default_rng(1)
    exposure = ExposureSpec(first=8, growth=1.0)
    for number in range(50):
        rows = np.sort(rng.permutation(DEVICES)[: 1 + number])
        together = active.tally.admit(rows, 1 + number // 2, exposure).tolist()
        one_by_one: list[int] = []
        for place, row in enumerate(rows.tolist()):
            room = len(one_by_one) < 1 + number // 2
            if room and active.tally.full_class(row, exposure) is None:
                one_by_one.append(place)
                active.tally.reserve((row,), 1)
        active.tally.reserve(rows[one_by_one].tolist(), -1)
        assert together == one_by_one


@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_forgets_neither_the_counts_nor_the_class(reverse: bool) -> None:
    fleet = fleet_with_classes()
    broken(fleet)
    rollout = fleet.start(plan("2", 100, gate=replace(GATE, confirm_after_s=8)))
    active = fleet.engine.rollout(rollout)
    while not failed_rows(fleet, rollout):
        fleet.tick(1)
    while not active.state.taken_back:
        before = fleet.view(rollout).evidence
        assert before.classes
        fleet.restart(reverse=reverse)
        after = fleet.view(rollout).evidence
        assert (after.classes, after.class_count) == (before.classes, before.class_count)
        fleet.tick(1)
        active = fleet.engine.rollout(rollout)
    known = failed_rows(fleet, rollout)
    fleet.restart(reverse=reverse)
    assert len(fleet.view(rollout).taken_back) == 1
    newest = {fleet.engine.desired(one.row, fleet.model) for one in fleet.by_row if in_class(one)}
    assert newest == {"1"}, "it is known before the next evaluation"
    view = fleet.finish(rollout)
    fleet.tick(5)
    assert view.status is Status.COMPLETED
    assert fleet.on_release() == {"1": SMALL, "2": DEVICES - SMALL}
    begun = fleet.engine.rollout(rollout).ledger.rows(DeviceStanding.FAILED)
    assert len(begun) <= len(known) + 5, "no other device of the class begins"


def test_a_class_that_was_taken_back_counts_no_more_and_why_says_so() -> None:
    fleet = fleet_with_classes()
    broken(fleet)
    rollout = fleet.start(plan("2", 50, 100, gate=replace(GATE, soak_s=200.0)))
    fleet.tick(60)
    view = fleet.view(rollout)
    evidence = view.evidence
    assert (view.status, len(view.taken_back)) == (Status.RUNNING, 1)
    assert (evidence.failed, evidence.errors.bad, evidence.reasons) == (0, 0, {})
    assert evidence.taken_back > 0
    assert all(one.value != "jetson_nano" for one in evidence.classes)
    assert WaitCode.CLASS_FAILURES in {wait.code for wait in view.why.waits}
    device = next(one for one in fleet.by_row if in_class(one))
    (wait,) = fleet.why_device(device.name).waits
    assert wait.code is WaitCode.NOT_OFFERED
    assert "profile=jetson_nano" in wait.text
    assert f"edgefleet rollout show {rollout}" in wait.text
    fleet.finish(rollout, at_most_s=800)
    (wait,) = fleet.why_device(device.name).waits
    assert wait.code is WaitCode.NOT_OFFERED
    assert "--again" in wait.text


def test_only_a_second_chance_gives_the_class_the_release_again() -> None:
    fleet = fleet_with_classes(by="gpu")
    broken(fleet)
    fleet.finish(fleet.start(plan("2", 1, 10, 100, gate=replace(GATE, classes=("gpu",)))))
    fleet.publish("2")
    with pytest.raises(OperatorError, match="was taken back") as error:
        fleet.plan(plan("2", 100, selector=f"gpu={OLD_GPU}"))
    assert error.value.code == "release_failed_before"
    fleet.tick(30)
    assert fleet.on_release() == {"1": SMALL, "2": DEVICES - SMALL}
    again = fleet.start(plan("2", 100, selector=f"gpu={OLD_GPU}", again="driver mended"))
    view = fleet.finish(again)
    assert view.status is Status.COMPLETED
    assert fleet.on_release() == {"2": DEVICES}


def test_a_failure_of_the_class_is_not_the_fault_of_a_device() -> None:
    fleet = fleet_with_classes()
    for release in ("2", "3"):
        fleet.publish(release, fate=lambda device: (
            Fate.FAILS if in_class(device) else Fate.HEALTHY
        ))  # fmt: skip
        fleet.finish(fleet.start(plan(release, 100)))
    assert not len(fleet.engine.quarantined_rows(fleet.model))


def test_a_newcomer_of_the_class_gets_no_offer() -> None:
    fleet = fleet_with_classes()
    broken(fleet)
    rollout = fleet.start(plan("2", 100, follow=True))
    fleet.finish(rollout)
    fleet.enrol(new_device("late", "jetson_nano", site="s0"))
    fleet.enrol(new_device("other", "generic_x86", site="s0"))
    fleet.tick(30)
    assert fleet.devices["late"].running != "2"
    assert fleet.devices["other"].running == "2"


def test_the_counts_follow_a_device_that_changes_its_labels() -> None:
    fleet = fleet_with_classes(by="gpu")
    fleet.publish("2", fate=lambda device: Fate.FAILS if device.row == 5 else Fate.HEALTHY)
    gate = replace(GATE, classes=("gpu",), soak_s=500.0)
    rollout = fleet.start(plan("2", 100, gate=gate))
    fleet.tick(60)

    def bad(value: str) -> int:
        found = fleet.view(rollout).evidence.classes
        return sum(one.rate.bad for one in found if one.value == value)

    assert (bad(OLD_GPU), bad("g2")) == (1, 0)
    fleet.engine.fleet.set_facts(5, "generic_x86", {"site": "s2", "gpu": "g2"})
    assert (bad(OLD_GPU), bad("g2")) == (0, 1)


def test_the_plan_fixes_the_classes() -> None:
    fleet = fleet_with_classes()
    fleet.enrol(new_device("one-a", "raspberry_pi", site="s9"))
    fleet.tick(3)
    fleet.publish("2")
    rollout = fleet.plan(plan("2", 100, gate=replace(GATE, classes=("site",))))
    assert fleet.engine.rollout(rollout).state.classes == (
        DeviceClass(key="profile", value="generic_x86", devices=DEVICES - SMALL),
        DeviceClass(key="profile", value="jetson_nano", devices=SMALL),
        *(DeviceClass(key="site", value=f"s{n}", devices=DEVICES // 3) for n in range(3)),
    )


def test_a_fleet_of_one_profile_has_no_class() -> None:
    fleet = CheckedFleet(30)
    fleet.publish("1")
    rollout = fleet.plan(spec("1", 100))
    assert fleet.engine.rollout(rollout).state.classes == ()


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("profile",), "Profiles are always tested"),
        (("site", "site"), "named twice"),
        (("sight",), "No device carries the label 'sight'"),
        (tuple(f"l{n}" for n in range(9)), "at most 8 are allowed"),
    ],
)
def test_a_wrong_list_of_labels_is_refused(classes: tuple[str, ...], says: str) -> None:
    fleet = CheckedFleet(30)
    fleet.publish("1")
    with pytest.raises(OperatorError, match=says) as error:
        fleet.plan(spec("1", 100, gate=GateSpec(classes=classes)))
    assert (error.value.code, error.value.field) == ("gate_invalid", "gate.classes")


def test_too_many_values_are_refused() -> None:
    fleet = CheckedFleet()
    for number in range(3 * 201):
        fleet.enrol(new_device(f"d{number}", rack=f"r{number // 3}"))
    fleet.publish("1")
    with pytest.raises(OperatorError, match="have 201 values; at most 200"):
        fleet.plan(spec("1", 100, gate=GateSpec(classes=("rack",))))


def test_a_part_may_be_a_time_and_a_label() -> None:
    fleet = fleet_with_classes()
    fleet.publish("2")
    rollout = fleet.start(plan("2", 100, gate=replace(GATE, soak_s=500.0)))
    fleet.tick(60)
    active = fleet.engine.rollout(rollout)
    began = active.ledger.activations
    middle = began.time(int(sorted(began.keys(active.members()))[DEVICES // 2]))
    part = TakenBack(until=middle, key="profile", value="jetson_nano")
    active.become(replace(active.state, taken_back=(part,)))
    mine = {row for row in range(DEVICES) if active.takes_back_part(row)}
    assert mine
    assert all(in_class(fleet.by_row[row]) for row in mine)
    assert all(began.time(began.key_of(row)) <= middle for row in mine)
    assert len(mine) < SMALL
