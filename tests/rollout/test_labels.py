"""Late labels: the accuracy of a release against the previous one, in waves and bake."""

import numpy as np
import pytest

from edgefleet.protocol.labels import ModelLabels, ReleaseLabels
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, RolloutView, Status
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.labels import ROUNDS, Labels
from edgefleet.rollout.limits import LABELS_OF_VETO
from edgefleet.testing import Behaviour, FakeDevice, FakeFleet

GATE = GateSpec(soak_s=60, confirm_after_s=60)
HOUR_S = 3600.0
OLD = Behaviour(labelled=0.05, labelled_accuracy=0.95, labels_late_s=HOUR_S)
WORSE = Behaviour(labelled=0.05, labelled_accuracy=0.92, labels_late_s=HOUR_S)


def rolled_out(new: Behaviour, *, old: Behaviour = OLD, bake_s: float = 3 * HOUR_S) -> FakeFleet:
    """A fleet of 300 and one rollout of release 2, until the end of its bake or its rollback."""
    devices = [FakeDevice(f"cam-{number:03}", requests_s=2.0) for number in range(300)]
    fleet = FakeFleet(devices, interval_s=60.0, tick_s=30.0)
    fleet.publish("1", old)
    fleet.install("1")
    fleet.publish("2", new)
    rollout = fleet.start(RolloutSpec(model="digits", release="2", gate=GATE, bake_s=bake_s))
    end = fleet.now + bake_s + 2 * HOUR_S
    while fleet.now < end and not is_over(fleet.view(rollout)):
        fleet.tick(300)
    return fleet


def is_over(view: RolloutView) -> bool:
    return view.status is Status.REVERTED or (view.bake is not None and view.bake.end is not None)


def ended(fleet: FakeFleet) -> RolloutView:
    return fleet.view(fleet.engine.states()[0].id)


def test_a_release_that_is_3_points_worse_by_late_labels_is_rolled_back_with_the_cause() -> None:
    view = ended(rolled_out(WORSE))
    assert (view.status, view.reason) == (Status.REVERTED, "labelled_accuracy_drop")
    assert "accuracy by labels that came late fell by" in view.text
    assert "control 9" in view.text, "the accuracy of the previous release with its count"


def test_labels_that_come_after_the_last_wave_count_in_the_bake() -> None:
    late = {"labelled": 0.05, "labels_late_s": 2 * HOUR_S}
    fleet = rolled_out(
        Behaviour(labelled_accuracy=0.92, **late),
        old=Behaviour(labelled_accuracy=0.95, **late),
        bake_s=4 * HOUR_S,
    )
    view = ended(fleet)
    assert view.exposed > 250, "all waves had passed before the first label"
    assert (view.status, view.reason) == (Status.REVERTED, "labelled_accuracy_drop")


def test_a_release_as_accurate_as_before_is_not_rolled_back() -> None:
    view = ended(rolled_out(OLD))
    assert view.status is Status.COMPLETED, view.text


def test_a_fall_within_the_limit_of_the_plan_is_not_rolled_back() -> None:
    view = ended(rolled_out(Behaviour(labelled=0.05, labelled_accuracy=0.945)))
    assert view.status is Status.COMPLETED, view.text


def test_why_and_view_show_both_accuracies_with_their_counts() -> None:
    fleet = FakeFleet(40, interval_s=60.0)
    fleet.publish("1", Behaviour(labelled=0.1, labelled_accuracy=0.95))
    fleet.install("1")
    fleet.publish("2", Behaviour(labelled=0.1, labelled_accuracy=0.95))
    rollout = fleet.start(RolloutSpec(model="digits", release="2", gate=GATE))
    fleet.tick(600)
    found = fleet.view(rollout).evidence.labels
    assert found.canary > 0
    assert found.control > found.canary
    shown = [wait.text for wait in fleet.why(rollout).waits if wait.code == "labels"]
    assert shown == [f"Labelled accuracy of release 2: {found.text}."]
    assert f"of {found.control} labels" in shown[0]


# One rollout's labels by themselves.


def counted(**releases: tuple[int, int]) -> ModelLabels:
    """``counted(r1=(20, 19))``: 19 of 20 labels of release 1 are correct."""
    return ModelLabels(
        model="digits",
        releases=tuple(
            ReleaseLabels(release=name[1:], labelled=labelled, correct=correct)
            for name, (labelled, correct) in releases.items()
        ),
    )


def add(
    labels: Labels,
    row: int,
    *,
    epoch: int = 1,
    is_control: bool = False,
    period: int = 1,
    **releases: tuple[int, int],
) -> None:
    labels.add(
        row, epoch, counted(**releases), release="2", previous="1", gate=GateSpec(),
        is_control=is_control, period=period,
    )  # fmt: skip


def figures(labels: Labels) -> tuple[int, int, int, int]:
    found = labels.evidence()
    return found.canary, found.canary_correct, found.control, found.control_correct


def test_labels_of_the_previous_release_count_for_it_also_after_the_switch() -> None:
    labels = Labels()
    add(labels, 1, r1=(20, 20), is_control=True)
    add(labels, 1, r1=(30, 20), r2=(5, 5))  # the device runs release 2 now
    assert figures(labels) == (5, 5, 30, 20)


def test_a_report_that_arrives_twice_counts_once() -> None:
    labels = Labels()
    for _ in range(3):
        add(labels, 1, r2=(20, 18))
    assert figures(labels) == (20, 18, 0, 0)


def test_the_counters_of_a_new_process_begin_at_zero() -> None:
    labels = Labels()
    add(labels, 1, r2=(20, 18))
    add(labels, 1, epoch=2, r2=(25, 10))
    assert figures(labels)[:2] == (45, 28)


def test_what_was_counted_before_a_restart_of_the_hub_does_not_count_again() -> None:
    labels = Labels(is_resumed=True)
    add(labels, 1, r2=(500, 100))
    add(labels, 1, r2=(510, 105))
    assert figures(labels)[:2] == (10, 5)


def test_a_device_is_compared_once_in_a_round() -> None:
    labels = Labels()
    for row in range(8):
        add(labels, row, r1=(16, 16), is_control=True)
    for _ in range(5):
        add(labels, 100, r2=(16, 0))
    (bet,) = labels.stored()
    assert (bet.release, bet.count) == ("16", 1)


def test_a_device_without_a_control_is_compared_with_itself() -> None:
    labels = Labels()
    for row in range(50):
        add(labels, row, r1=(16, 16))
        add(labels, row, r1=(16, 16), r2=(16, 8))
    found = labels.difference()
    assert found is not None
    assert found.pairs == 50
    assert found.mean > 0.25


def test_labels_that_come_after_the_switch_still_find_their_device() -> None:
    labels = Labels()
    add(labels, 1, r2=(16, 8))
    add(labels, 1, r1=(16, 16), r2=(16, 8))
    found = labels.difference()
    assert found is not None
    assert found.pairs == 1


def test_devices_that_became_worse_without_the_release_have_a_veto() -> None:
    labels = Labels()
    for row in range(60):
        add(labels, row, r1=(64, 62))
    for row in range(40, 60):
        add(labels, row, r1=(64 + LABELS_OF_VETO, 62 + LABELS_OF_VETO * 8 // 10), is_control=True,
            period=2)  # fmt: skip
    for row in range(40):
        add(labels, row, r1=(64, 62), r2=(64, 52), period=2)
    assert labels.evidence().is_shared


def test_bets_go_on_from_their_stored_values() -> None:
    labels = Labels()
    for row in range(30):
        add(labels, row, r1=(16, 16), r2=(16, 10))
    resumed = Labels(is_resumed=True)
    for bet in labels.stored():
        resumed.resume(bet, GateSpec())
    assert resumed.difference() == labels.difference()


def simulated(seed: int, *, devices: int, drop: float, spread: float) -> tuple[int, int] | None:
    """The devices and labels on each side at which the release fails. None if it does not.

    The accuracy of the devices varies by ``spread``. Each has 16 more labels a round, at most 512.
    """
    chance, labels = np.random.default_rng(seed), Labels()
    own = np.clip(chance.normal(0.95, spread, 2 * devices), 0, 1)
    bar = alphas.LABELS.log_bar(GateSpec())
    right = np.zeros(2 * devices, int)
    for count in range(16, 513, 16):
        for row in range(2 * devices):
            is_control = row < devices
            right[row] += chance.binomial(16, own[row] - (0 if is_control else drop))
            sent = {"r1" if is_control else "r2": (count, int(right[row]))}
            add(labels, row, is_control=is_control, **sent)
            found = labels.difference()
            if found is not None and np.log(found.e_value) >= bar:
                return row - devices + 1, labels.evidence().canary
    return None


def test_3_points_are_found_with_at_most_13_000_labels_of_200_devices() -> None:
    found = [simulated(seed, devices=200, drop=0.03, spread=0.02) for seed in range(5)]
    assert None not in found
    assert max(labels for _, labels in filter(None, found)) <= 200 * 64


@pytest.mark.parametrize("drop", [0.0, 0.005])
def test_unlike_devices_alone_fail_no_release(drop: float) -> None:
    found = [simulated(seed, devices=60, drop=drop, spread=0.04) for seed in range(4)]
    assert found == [None] * 4


def test_the_rounds_share_the_alpha_of_the_labels() -> None:
    labels = Labels()
    for row in range(400):
        add(labels, row, r1=(16, 16), r2=(16, 14))
    found, (bet,) = labels.difference(), labels.stored()
    assert found is not None
    logs = np.array(bet.logs) / (1 << 40)
    wealth = np.exp(logs).mean()
    assert found.e_value == pytest.approx(min(wealth / len(ROUNDS), 1e12), rel=1e-6)
