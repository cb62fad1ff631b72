"""Cohorts: the canary compared with the control."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.bins import bucket, upper_edge_us
from edgefleet.protocol.device import (
    Outcome,
    OutcomeKind,
    Scores,
    Sketches,
    Switch,
    Telemetry,
)
from edgefleet.protocol.rollout import LimitCounts, Status, Verb
from edgefleet.rollout.evidence.cohorts import Cohorts, Figures
from edgefleet.rollout.limits import (
    LATENCY_DEVICES_PER_COHORT,
    SCORES_PER_DEVICE,
    SCORES_WAITING,
)
from edgefleet.testing import Behaviour, FakeDevice
from support.fleets import CheckedFleet
from support.plans import GATE, spec
from support.waiting import until


def telemetry(requests: int, confidence: float, p95: int, release: str = "1") -> Telemetry:
    return Telemetry(
        release=release, requests=requests, errors=1, confidence_sum=confidence * requests,
        confidence_count=requests, latency_us_p50=1, latency_us_p95=p95, memory_mib=1,
    )  # fmt: skip


def limits(cohorts: Cohorts) -> LimitCounts:
    return cohorts.limits(has_previous=True)


def scored(before: str, after: str, **scores: float) -> Telemetry:
    said = Scores(from_release=before, to_release=after, requests=100, **scores)
    return replace(telemetry(10, 0.9, 100, after), errors=0, scores=said)


def test_figures_add_up_and_without_sketches_the_latency_is_the_median_over_devices():
    figures = Figures()
    for row, p95 in ((3, 900), (3, 100), (7, 300), (9000, 500)):
        figures.add(row, telemetry(10, 0.8, p95))
    cohort = figures.cohort()
    assert (cohort.devices, cohort.requests, cohort.errors) == (3, 40, 4)
    assert cohort.confidence_mean is not None
    assert abs(cohort.confidence_mean - 0.8) < 1e-9
    assert (cohort.latency_us_p50, cohort.latency_us_p95) == (None, 300)


def test_sketches_of_many_devices_add_up_bin_by_bin():
    figures = Figures()
    for row in range(50):
        said = Sketches(latency={20: 9, 60: 1}, confidence=(0, 5), classes=(1, 2), inputs=(3,))
        figures.add(row, replace(telemetry(10, 0.8, 100), sketches=said))
    cohort = figures.cohort()
    assert cohort.confidence[:3] == (0, 250, 0)
    assert (cohort.classes[:2], cohort.inputs[0]) == ((50, 100), 150)
    assert (cohort.latency_us_p50, cohort.latency_us_p95) == (26, 832)  # the buckets' upper edges


def test_a_device_without_requests_says_nothing_of_latency():
    figures = Figures()
    figures.add(1, telemetry(0, 0, 0))
    assert (figures.cohort().latency_us_p95, figures.cohort().confidence_mean) == (None, None)


def test_the_latencies_that_are_kept_are_bounded():
    figures = Figures()
    for row in range(LATENCY_DEVICES_PER_COHORT + 50):
        figures.add(row, telemetry(1, 0.5, 100))
    assert len(figures.latency_us_p95) == LATENCY_DEVICES_PER_COHORT
    assert figures.cohort().devices == LATENCY_DEVICES_PER_COHORT + 50


def test_each_canary_is_compared_with_one_control_and_each_device_counts_once():
    cohorts = Cohorts()
    for _ in range(3):
        for row in range(10):
            cohorts.add_control(row, scored("1", "1", latency_log_ratio=0.1), GATE, 0)
        for row in range(100, 104):
            cohorts.add_canary(row, scored("1", "2", latency_log_ratio=0.4), GATE, 0)
    (found,) = cohorts.differences()
    assert (found.metric, found.pairs) == ("latency", 4)
    assert abs(found.mean - 0.3) < 1e-9


def test_a_canary_that_speaks_first_waits_for_a_control():
    cohorts = Cohorts()
    cohorts.add_canary(1, scored("1", "2", class_drift=0.5), GATE, 0)
    assert cohorts.differences() == ()
    cohorts.add_control(2, scored("1", "1", class_drift=0.1), GATE, 0)
    assert [(one.metric, one.pairs) for one in cohorts.differences()] == [("classes", 1)]


def test_scores_that_wait_are_bounded_and_the_latest_controls_are_kept():
    cohorts = Cohorts()
    for row in range(SCORES_WAITING + 100):
        delta = 0.0 if row < 100 else -0.1
        cohorts.add_control(row, scored("1", "1", confidence_delta=delta), GATE, 0)
    for row in range(1000, 1000 + SCORES_WAITING + 50):
        cohorts.add_canary(row, scored("1", "2", confidence_delta=-0.1), GATE, 0)
    (found,) = cohorts.differences()
    assert (found.pairs, found.mean) == (SCORES_WAITING, 0.0)


def test_golden_accuracy_is_compared_on_the_same_device():
    cohorts = Cohorts()
    said = Outcome(
        id="1", rollout="ro", release="2", kind=OutcomeKind.CONFIRMED, at=0.0, accuracy=0.9,
        accuracy_before=0.95,
    )  # fmt: skip
    for _ in range(60):
        cohorts.confirmed(said, GATE)
    cohorts.confirmed(replace(said, accuracy_before=None), GATE)
    (found,) = cohorts.differences()
    assert (found.metric, found.pairs) == ("accuracy", 60)
    assert found.e_value > 1000


def test_a_device_above_a_limit_is_counted_by_all_its_requests():
    cohorts = Cohorts()
    slow = replace(telemetry(100, 0.9, 150_000), memory_mib=60, errors=20)
    cohorts.add_canary(1, slow, GATE, 64)
    seen = limits(cohorts)
    assert (seen.devices, seen.latency, seen.request_errors, seen.memory) == (1, 0, 1, 1)
    cohorts.add_canary(1, slow, GATE, 64)  # its first report may be that of the warm-up
    cohorts.add_canary(2, replace(slow, requests=5), GATE, 64)  # too few requests
    seen = limits(cohorts)
    assert (seen.devices, seen.latency, seen.request_errors, seen.memory) == (1, 1, 1, 1)
    cohorts.add_canary(1, telemetry(1000, 0.9, 1000), GATE, 64)  # 41 of 1,200 failed
    seen = limits(cohorts)
    assert (seen.devices, seen.latency, seen.request_errors, seen.memory) == (1, 0, 0, 0)


def test_the_warm_up_of_a_release_is_not_above_the_limit_of_latency():
    """The report of a minute says what it was asked for in it, not since the release was loaded."""
    cohorts = Cohorts()
    cold = replace(telemetry(100, 0.9, 150_000), sketches=Sketches(latency={bucket(150_000): 100}))
    warm = replace(cold, sketches=Sketches(latency={bucket(50_000): 100}))
    rows = np.arange(5)
    for report in (cold, warm):
        cohorts.add_canaries(rows, report, GATE, 64)
        assert (limits(cohorts).devices, limits(cohorts).latency) == (5, 0)
    cohorts.add_canaries(rows, cold, GATE, 64)
    assert limits(cohorts).latency == 5


def test_one_device_that_claims_a_million_scores_does_not_make_the_mean():
    figures = Figures()
    for row in range(20):
        figures.add(row, telemetry(100, 0.9, 100))
    figures.add(20, telemetry(1_000_000, 0.0, 100))
    figures.add(21, telemetry(100, 900.0, 100))  # no score is above 1
    mean = figures.cohort().confidence_mean
    assert mean is not None
    assert abs(mean - (20 * 0.9 + 0.0 + 1.0) / 22) < 1e-9


def test_the_mean_of_a_busy_device_follows_what_it_reports_later():
    figures = Figures()
    for confidence in (0.9, 0.5):
        figures.add(3, telemetry(SCORES_PER_DEVICE, confidence, 100))
    mean = figures.cohort().confidence_mean
    assert mean is not None
    assert abs(mean - 0.7) < 1e-9


UNMEASURED = Behaviour(accuracy=None)
"""Devices that report no figures, so that a test reports all of them."""


def story() -> tuple[CheckedFleet, str]:
    fleet = CheckedFleet(600)
    fleet.publish("1", UNMEASURED)
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2", UNMEASURED)
    rollout = fleet.start(spec("2", 10, 100))
    until(
        lambda: fleet.view(rollout).evidence.healthy,
        "No device confirmed release 2.",
        between=lambda: fleet.tick(1),
    )
    return fleet, rollout


def report(fleet: CheckedFleet, **scores: float) -> None:
    """Every device reports: devices on release 2 these scores, the others unchanged scores."""
    for device in fleet.by_row:
        release = device.running
        assert release is not None
        flat = dict.fromkeys(scores, 0.0)
        said = scored("1", "2", **scores) if release == "2" else scored("1", "1", **flat)
        fleet.engine.intake.add_telemetry(device.row, said, fleet.now)


def test_a_release_that_is_less_sure_of_itself_is_taken_back():
    fleet, rollout = story()
    while fleet.view(rollout).evidence.healthy < 50:
        fleet.tick(1)
    report(fleet, confidence_delta=-0.28)
    view = fleet.finish(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "confidence_drop")
    assert fleet.on_release()["1"] == 600
    assert view.evidence.quality[0].pairs >= 50  # kept with the verdict
    assert view.evidence.canary.devices >= 50


def test_a_release_that_is_as_sure_goes_on():
    fleet, rollout = story()
    report(fleet, confidence_delta=-0.05)
    assert fleet.finish(rollout).status is Status.COMPLETED


def test_devices_that_send_no_scores_leave_quality_unjudged():
    fleet, rollout = story()
    for device in fleet.by_row:
        sent = replace(telemetry(20, 0.2, 200 + device.row, device.running or ""), errors=0)
        fleet.engine.intake.add_telemetry(device.row, sent, fleet.now)
    view = fleet.finish(rollout)
    assert (view.status, view.evidence.quality) == (Status.COMPLETED, ())


def test_devices_outside_the_rollout_are_no_control():
    fleet = CheckedFleet(90)
    fleet.publish("1", UNMEASURED)
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2", UNMEASURED)
    rollout = fleet.start(spec("2", 50, 100, selector="site=s1"))
    report(fleet, confidence_delta=0.0)
    assert fleet.view(rollout).evidence.control.devices == 30


def test_a_device_that_never_took_the_release_is_no_canary():
    fleet, rollout = story()
    took = {device.row for device in fleet.by_row if device.running == "2"}
    liar = next(device for device in fleet.by_row if device.row not in took)
    report(fleet, confidence_delta=0.0)
    before = fleet.view(rollout).evidence.canary
    fleet.engine.intake.add_telemetry(liar.row, scored("1", "2", confidence_delta=-0.3), fleet.now)
    assert fleet.view(rollout).evidence.canary == before
    assert fleet.finish(rollout).status is Status.COMPLETED


def test_clients_that_leave_a_release_take_it_back_where_the_plan_has_a_bound() -> None:
    for drop, reason in ((1.0, "completed"), (0.3, "request_drop")):
        fleet = CheckedFleet(600)
        fleet.publish("1", UNMEASURED)
        fleet.finish(fleet.start(spec("1", 100)))
        fleet.publish("2", UNMEASURED)
        plan = spec("2", 10, 100)
        rollout = fleet.start(replace(plan, gate=replace(plan.gate, max_request_drop=drop)))
        while fleet.view(rollout).evidence.healthy < 50:
            fleet.tick(1)
        report(fleet, request_rate_change=-0.8)
        view = fleet.finish(rollout)
        assert view.reason == reason
        if reason != "completed":
            said = view.waves[0].judgement
            assert said is not None
            assert said.text.startswith("Requests per device fell by 80 % against the control")


def test_heavy_tails_of_traffic_are_no_fall() -> None:
    """Each device is one observation of at most 1, so a few very busy ones do not decide."""
    gate = replace(GATE, max_request_drop=0.1)
    failed = 0
    for seed in range(60):
        draw = Random(seed)
        cohorts = Cohorts()
        for row in range(0, 400, 2):
            for place, (was, now) in ((row, ("1", "1")), (row + 1, ("1", "2"))):
                old, new = (draw.paretovariate(1.1) for _ in range(2))
                said = scored(was, now, request_rate_change=(new - old) / max(new, old))
                if was == now:
                    cohorts.add_control(place, said, gate, 0)
                else:
                    cohorts.add_canary(place, said, gate, 0)
        found = {one.metric: one for one in cohorts.differences()}
        assert {key: one.pairs for key, one in found.items()} == {
            "requests": 200,
            "silent_clients": 200,
        }
        failed += any(one.e_value >= 1400 for one in found.values())
    assert failed == 0


@pytest.mark.parametrize("in_a_batch", [False, True])
def test_one_busy_device_moves_no_figure_that_is_shown(in_a_batch: bool):
    """99 devices with 100 fast requests each, and one with ten million slow ones that fail."""

    def report(requests: int, latency_us: int, errors: int, top: int) -> Telemetry:
        said = Sketches(
            latency={bucket(latency_us): requests},
            classes=tuple(requests if place == top else 0 for place in range(2)),
        )
        return replace(telemetry(requests, 0.8, latency_us), errors=errors, sketches=said)

    figures = Figures()
    quiet, busy = report(100, 2_000, 1, 0), report(10_000_000, 90_000, 5_000_000, 1)
    if in_a_batch:
        figures.add_all(np.arange(99), quiet)
    else:
        for row in range(99):
            figures.add(row, quiet)
    assert figures.cohort().latency_us_p95 == upper_edge_us(bucket(2_000))
    figures.add(99, busy)
    cohort = figures.cohort()
    assert cohort.latency_us_p95 == upper_edge_us(bucket(2_000))
    assert cohort.classes[:2] == (9_900, 100)
    assert cohort.error_share == pytest.approx((0.99 * 0.01) + (0.01 * 0.5))
    assert (cohort.requests, cohort.errors) == (10_009_900, 5_000_099)  # the totals


def test_a_share_of_a_busy_report_is_not_lost():
    figures = Figures()
    said = Sketches(latency={10: 999_000, 200: 1_000})
    figures.add(0, replace(telemetry(1_000_000, 0.8, 10), errors=1_000, sketches=said))
    assert figures.cohort().error_share == pytest.approx(0.001)


def paused(fleet: CheckedFleet, rollout: str) -> list[FakeDevice]:
    """Pause the rollout, so that the evidence comes from the test. Returns the canaries."""
    fleet.command(rollout, Verb.PAUSE)
    return [device for device in fleet.by_row if device.running == "2"]


def test_a_restart_goes_on_with_the_bets():
    """Half of the evidence came before the restart. Neither half alone fails the release."""
    fleet, rollout = story()
    canaries = paused(fleet, rollout)
    controls = [device for device in fleet.by_row if device.running == "1"]
    for half in (0, 1):
        for device in canaries[half:40:2]:
            said = scored("1", "2", confidence_delta=-0.25)
            fleet.engine.intake.add_telemetry(device.row, said, fleet.now)
        for device in controls[half:40:2]:
            said = scored("1", "1", confidence_delta=0.0)
            fleet.engine.intake.add_telemetry(device.row, said, fleet.now)
        fleet.evaluate()
        if half == 0:
            (before,) = fleet.view(rollout).evidence.quality
            assert (before.pairs, fleet.view(rollout).status) == (20, Status.PAUSED)
            fleet.restart()
            assert fleet.view(rollout).evidence.quality == (before,)
    view = fleet.view(rollout)
    assert (view.status, view.reason) == (Status.REVERTING, "confidence_drop")
    assert view.evidence.quality[0].pairs == 40


def test_bets_are_stored_at_most_once_a_minute():
    fleet, rollout = story()
    canaries = paused(fleet, rollout)
    report(fleet, confidence_delta=-0.05)
    began, times = fleet.now, []
    for device in canaries[:9]:
        other = fleet.by_row[-1 - device.row]
        said = scored("1", "1", confidence_delta=0.01 * device.row)
        fleet.engine.intake.add_telemetry(other.row, said, fleet.now)
        fleet.tick(20)
        times.append(fleet.engine.rollout(rollout).state.bets_at - began)
    assert all(later == before or later - before >= 60 for before, later in pairwise(times))
    assert fleet.engine.rollout(rollout).state.bets[0].count > 0


def test_the_bets_on_neighbours_go_on_too():
    cohorts = Cohorts()
    other = replace(scored("4", "4", latency_log_ratio=0.3), model="detector")
    switched = replace(other, scores=replace(other.scores, switched=Switch(model="m", release="2")))
    for row in range(8):
        cohorts.neighbours.add(row, other, GATE, None)
        cohorts.neighbours.add(100 + row, switched, GATE, Switch(model="m", release="2"))
    resumed = Cohorts()
    resumed.resume(cohorts.stored_bets(), {}, GATE)
    assert resumed.differences() == cohorts.differences() != ()
    assert resumed.stored_bets() == cohorts.stored_bets()


def test_the_accuracy_comes_from_the_outcomes_and_counts_once():
    cohorts = Cohorts()
    said = Outcome(
        id="1", rollout="ro", release="2", kind=OutcomeKind.CONFIRMED, at=0.0, accuracy=0.9,
        accuracy_before=0.95,
    )  # fmt: skip
    cohorts.confirmed(said, GATE)
    assert (len(cohorts.differences()), cohorts.stored_bets()) == (1, ())
