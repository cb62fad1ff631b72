"""No answer is not health: requests that do not arrive, and requests that are refused."""

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Outcome, OutcomeKind, Scores, Telemetry
from edgefleet.protocol.rollout import (
    Cohort,
    Difference,
    Evidence,
    GateSpec,
    LimitCounts,
    LimitSide,
    RolloutSpec,
    Status,
    Verdict,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.device_limits import SwitchPairs
from edgefleet.rollout.evidence.gate import judge
from edgefleet.rollout.evidence.traffic import missing, unjudged
from edgefleet.testing import Behaviour, FakeFleet

SPEC = GateSpec()
WAVE = Evidence(
    cut=10, healthy=10, exposed=10, remaining=990, control=Cohort(devices=900, requests=2_000_000)
)


def served(requests: int, **more: int) -> Evidence:
    return replace(WAVE, canary=Cohort(devices=10, requests=requests, **more))


@pytest.mark.parametrize(
    ("evidence", "spec", "text"),
    [
        (served(0), SPEC, "Clients do not reach the release: its 10 devices served 0 requests"),
        (served(49), SPEC, "at the rate of the control they would have served about 20202."),
        (served(50), SPEC, ""),  # enough to judge the quality
        (replace(served(0), control=Cohort()), SPEC, ""),  # the control is not asked, either
        (replace(served(0), control=Cohort(devices=900, requests=2_000)), SPEC, ""),  # 20 expected
        (replace(served(30), control=Cohort(devices=900, requests=9_000)), SPEC, ""),  # a third
        (
            replace(served(0, rated=5, left=3), control=Cohort(rated=5, left=1)),
            SPEC,
            "nearly no requests arrive on 3 of 5 devices that were asked before the switch.",
        ),
        (replace(served(0, rated=5, left=2), control=Cohort()), SPEC, ""),
        (replace(served(0, rated=5, left=5), control=Cohort(rated=40, left=20)), SPEC, ""),
        (
            replace(served(49), control=Cohort()),
            GateSpec(require_traffic=True),
            "The plan demands 50 requests to the release before a wave passes; it has served 49.",
        ),
        (served(50), GateSpec(require_traffic=True), ""),
        (served(500), GateSpec(require_traffic=True, min_requests=600), "The plan demands 600"),
    ],
)
def test_a_wave_waits_for_clients(evidence: Evidence, spec: GateSpec, text: str) -> None:
    found = missing(evidence, spec)
    assert text in found
    assert bool(found) is bool(text)
    judged = judge(evidence, spec, opened_at=0.0, before=None, now=10.0)
    assert (judged.reason == "no_requests") is bool(text)
    assert judged.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (served(0), "Live quality unjudged: the release served no requests."),
        (served(0, refused=70), "Live quality unjudged: the release refused all 70 requests."),
        (served(20), "Live quality unjudged: its requests were too few."),
        (
            replace(served(900), limits=LimitCounts(devices=9)),
            "Live quality was compared with the limits of the plan, not with a control.",
        ),
    ],
)
@pytest.mark.parametrize("accuracy", [False, True])
def test_without_live_requests_the_quality_is_unjudged_whatever_the_golden_set_says(
    evidence: Evidence, text: str, accuracy: bool
) -> None:
    golden = Difference(metric="accuracy", pairs=10, mean=-0.02, e_value=1e-9)
    seen = replace(evidence, quality=(golden,)) if accuracy else evidence
    assert unjudged(seen, SPEC) == text


def rolling_out(behaviour: Behaviour, devices: int, spec_of: GateSpec) -> FakeFleet:
    """A fleet on release 1 that rolls release 2 out to a tenth first."""
    fleet = FakeFleet(devices)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2", behaviour)
    spec = RolloutSpec(
        model="digits", release="2", gate=spec_of, bake_s=0,
        waves=(WaveSpec(percent=10), WaveSpec(percent=100)),
    )  # fmt: skip
    fleet.start(spec)
    return fleet


GATE = GateSpec(soak_s=5, confirm_after_s=5, patience_s=600)


def test_a_release_that_no_client_reaches_waits_for_a_person_in_a_small_fleet() -> None:
    fleet = rolling_out(Behaviour(traffic=0.0), 20, GATE)
    fleet.tick(300)
    view = fleet.view(fleet.engine.states()[0].id)
    assert (view.status, view.wave) == (Status.RUNNING, 0)
    assert [wait.code for wait in view.why.for_a_person] == [WaitCode.NO_REQUESTS]


def test_a_release_that_no_client_reaches_is_rolled_back_in_a_large_one() -> None:
    fleet = rolling_out(Behaviour(traffic=0.0), 400, GATE)
    fleet.tick(300)
    view = fleet.view(fleet.engine.states()[0].id)
    assert (view.status, view.reason) == (Status.REVERTED, "request_drop")
    assert view.exposed <= 40


def test_a_release_without_traffic_anywhere_completes_and_says_that_it_is_unjudged() -> None:
    fleet = rolling_out(Behaviour(), 20, GATE)
    for device in fleet.by_row:
        device.requests_s = 0
    fleet.tick(600)
    view = fleet.view(fleet.engine.states()[0].id)
    assert view.status is Status.COMPLETED
    assert view.text == ("All waves passed. Live quality unjudged: the release served no requests.")


def refused(count: int, requests: int = 0, kind: str = "unknown_input") -> Telemetry:
    return Telemetry(
        release="2", requests=requests, errors=0, confidence_sum=0.0, confidence_count=0,
        latency_us_p50=0, latency_us_p95=0, memory_mib=0, refused=count,
        refusals={kind: count} if count else {},
        refusal_example="clients send `pixels`, release 2 wants `image`" if count else "",
    )  # fmt: skip


@pytest.mark.parametrize("in_a_batch", [False, True])
def test_devices_that_refuse_every_request_are_above_the_limit(in_a_batch: bool) -> None:
    sides = Cohorts()
    rows = np.arange(12)
    for _ in range(2):
        for said, mine in ((refused(30), rows[:9]), (refused(1, 99), rows[9:])):
            if in_a_batch:
                sides.add_canaries(mine, said, SPEC, 64)
            else:
                for row in mine.tolist():
                    sides.add_canary(row, said, SPEC, 64)
    found = sides.limits(has_previous=False)
    assert (found.devices, found.refusals, found.request_errors) == (12, 9, 0)
    canary = sides.canary.cohort()
    assert (canary.requests, canary.refused) == (594, 546)
    assert canary.refusal_share == pytest.approx((9 * 30 + 3) / (9 * 30 + 3 * 100))
    assert canary.refusal_cause == (
        "Most frequent: unknown_input (546 requests): clients send `pixels`, release 2 wants "
        "`image`."
    )


def test_kinds_of_refusals_that_devices_invent_stay_bounded() -> None:
    sides = Cohorts()
    for number in range(100):
        sides.add_canary(number, refused(1, kind=f"kind-{number}"), SPEC, 64)
    canary = sides.canary.cohort()
    assert len(canary.refusals) == 17
    assert canary.refusals["other"] == 84
    assert canary.refused == 100


def test_a_limit_of_refusals_that_the_release_before_exceeds_as_well_does_not_fail() -> None:
    seen = replace(WAVE, canary=Cohort(devices=10, requests=900))
    mine = LimitCounts(devices=10, refusals=9, has_previous=True)
    shared = replace(mine, control=LimitSide(devices=900, refusals=800))
    alone = replace(mine, control=LimitSide(devices=900, refusals=0))

    def reason(limits: LimitCounts) -> str:
        evidence = replace(seen, limits=limits)
        return judge(evidence, SPEC, opened_at=0.0, before=None, now=10.0).reason

    assert reason(shared) == "soak"
    assert reason(alone) == "refusals"


def test_a_switch_to_a_release_that_refuses_everything_is_a_pair_that_got_worse() -> None:
    pairs = SwitchPairs()
    scores = Scores(
        from_release="1", to_release="2", requests=0, asked=100, refusal_rate=1.0,
        refusal_rate_delta=1.0,
    )  # fmt: skip
    pairs.add(1, scores, SPEC)
    (found,) = pairs.rounds()["refusal_limit"]
    assert (found.pairs, found.worse, found.better) == (1, 1, 0)


def test_the_cause_of_failed_trials_is_what_a_device_says() -> None:
    fleet = rolling_out(Behaviour(), 60, replace(GATE, confirm_after_s=3600))
    fleet.tick(60)
    (state, *_) = fleet.engine.states()
    detail = "40 of 40 requests were refused: clients send `pixels`, release 2 wants `image`."
    tried = [device for device in fleet.by_row if device.running == "2"]
    for number, device in enumerate(tried):
        outcome = Outcome(
            id=f"o-{number}", rollout=state.id, release="2", kind=OutcomeKind.TRIAL_FAILED,
            at=fleet.now, reason="requests_refused", detail=detail if number else "", attempt=1,
        )  # fmt: skip
        fleet.engine.intake.record(device.row, outcome, fleet.now)
    fleet.tick(2)
    view = fleet.view(state.id)
    assert view.status in (Status.REVERTING, Status.REVERTED)
    where = f"Requests refused on {len(tried)} devices. On {tried[1].name}: "
    assert view.text.startswith(f"{where}{detail} ")
