"""The gate compares the cost of canaries with that of controls, in pairs of their own."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Scores, Telemetry
from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import Cohort, Evidence, GateSpec, Verdict
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.gate import judge
from support.fleets import CheckedFleet, new_device
from support.plans import spec

SPEC = GateSpec()
SIDE = Cohort(devices=60, requests=6000)


def report(release: str, before: str, **costs: float) -> Telemetry:
    scores = Scores(from_release=before, to_release=release, requests=100, cpu_log_ratio=0.0)
    return Telemetry(
        release=release, requests=100, errors=0, confidence_sum=90.0, confidence_count=100,
        latency_us_p50=1, latency_us_p95=2, memory_mib=40, cpu_s=0.05, scores=scores,
        costs=replace(scores, cpu_log_ratio=None, **costs),
    )  # fmt: skip


def judged(pairs: int, spec: GateSpec = SPEC, **costs: float) -> tuple[Verdict, str]:
    """The verdict after this many devices of each side have reported."""
    sides = Cohorts()
    for row in range(pairs):
        sides.add_canary(2 * row, report("2", "1", **costs), spec, 64)
        steady = dict.fromkeys(costs, 0.0)
        sides.add_control(2 * row + 1, report("1", "1", **steady), spec, 64)
    evidence = Evidence(
        cut=pairs, healthy=pairs, exposed=pairs, canary=SIDE, control=SIDE,
        quality=sides.differences(),
    )  # fmt: skip
    said = judge(evidence, spec, opened_at=0.0, before=None, now=1.0)
    return said.verdict, said.reason


WORSE = {
    "memory_growth_delta": (60.0, "memory_growth", "max_memory_growth_mib_h"),
    "temperature_delta": (15.0, "temperature", "max_temperature_rise"),
    "throttled_delta": (0.5, "throttling", "max_throttling_increase"),
    "battery_drain_delta": (15.0, "battery_drain", "max_battery_drain_increase"),
}


@pytest.mark.parametrize("field", WORSE)
def test_a_cost_that_rose_on_all_canaries_fails_and_is_named(field: str) -> None:
    by, reason, bound = WORSE[field]
    assert judged(60, **{field: by}) == (Verdict.FAIL, reason)
    assert judged(60, **{field: -by})[0] is not Verdict.FAIL
    wide = 0.9 if bound == "max_throttling_increase" else 1.1 * by
    assert judged(60, replace(SPEC, **{bound: wide}), **{field: by})[0] is not Verdict.FAIL
    assert judged(5, **{field: by})[0] is not Verdict.FAIL


def test_a_device_that_was_paired_by_its_requests_is_paired_by_its_costs_too() -> None:
    sides = Cohorts()
    for row in (0, 1):
        quick = replace(report("2", "1") if row == 0 else report("1", "1"), costs=None)
        add = sides.add_canary if row == 0 else sides.add_control
        add(row, quick, SPEC, 64)
    sides.add_canary(0, report("2", "1", memory_growth_delta=60.0), SPEC, 64)
    sides.add_control(1, report("1", "1", memory_growth_delta=0.0), SPEC, 64)
    pairs = {one.metric: (one.pairs, one.mean) for one in sides.differences()}
    assert pairs == {"cpu": (1, 0.0), "memory_growth": (1, pytest.approx(60.0))}


def test_the_cpu_time_of_a_request_is_shown_for_both_sides() -> None:
    sides = Cohorts()
    sides.add_canary(0, report("2", "1"), SPEC, 64)
    assert sides.canary.cohort().cpu_us == pytest.approx(500)
    assert sides.control.cohort().cpu_us is None


def test_costs_have_their_part_of_the_share_of_all_changes() -> None:
    on = [one for one in CHANGES if one.is_on(SPEC) and not one.of_labels]
    assert {"cpu", "memory_growth", "temperature", "throttling", "battery"} <= {
        metric.key for metric in on
    }
    assert alphas.changes_log_bar(SPEC) == alphas.CHANGES_SHARE.log_bar(SPEC, len(on))


def test_an_offer_has_the_limits_of_cost_of_its_plan() -> None:
    fleet = CheckedFleet(3)
    fleet.publish("1")
    gate = replace(spec("1").gate, max_cpu_increase=0.7, max_memory_growth_mib_h=33.0)
    fleet.start(spec("1", 100, gate=gate))
    newcomer = fleet.enrol(new_device("newcomer", site="s0"))
    (offer,) = fleet.engine.admission.offers(newcomer.row, fleet.now)
    assert (offer.max_cpu_increase, offer.max_memory_growth_mib_h) == (0.7, 33.0)
