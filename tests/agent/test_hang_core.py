"""Requests that do not end: the core finds them in trial, afterwards and on the way back."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from edgefleet.agent import hang, limits, trial
from edgefleet.agent import quality_window as window
from edgefleet.agent.effect import Apply
from edgefleet.agent.event import Activated, ActivationFailed, ServingProbed, TimerFired
from edgefleet.agent.state import Attempt, QualityWindow, Windows
from edgefleet.agent.table import Stage
from edgefleet.agent.trial import HEALTHY, Sick, Watching
from edgefleet.protocol.device import IsolationReason, OutcomeKind, Reason
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats, ServingStatus, StuckRelease
from support.agent_steps import answer, check_in, confirmed_is_served, installed, look, to_watching
from support.agent_world import Device, offer, serving

CONFIRM_S = 8.0
QUALITY = Quality(output="y", scores="probabilities", min_requests=10)
ATTEMPT = Attempt(
    number=1,
    rollout="ro-2",
    action="install",
    model="digits",
    release="2",
    manifest_sha256="0" * 64,
    confirm_after_s=CONFIRM_S,
    max_attempts=2,
    slot="b",
    leaving="1",
    incumbent_us_p95=2_000,
    incumbent_answers=5_000,
    incumbent_answers_s=10.0,
)
LONGEST_S = limits.TRIAL_STRETCH * CONFIRM_S + limits.TRIAL_SLACK_S


def judge(now: float, attempt: Attempt = ATTEMPT, **stats: float) -> object:
    watch = trial.begin(attempt, serving("2", on_trial=True), 0.0)
    status = counted("2", on_trial=True, **stats)
    return trial.judge(attempt, QUALITY, watch, status, alive=True, now=now)


def counted(release: str, *, on_trial: bool = False, **stats: float) -> ServingStatus:
    status = serving(release, on_trial=on_trial)
    mine = replace(status.models[0], stats=LiveStats(**stats))  # type: ignore[arg-type] - by name
    return replace(status, models=(mine,))


@pytest.mark.parametrize(
    ("usual_us", "limit_s"),
    [
        (0, limits.HUNG_MOST_S),
        (2_000, limits.HUNG_LEAST_S),
        (1_000_000, 8.0),
        (60_000_000, limits.HUNG_MOST_S),
    ],
)
def test_the_limit_follows_the_latency_of_the_device(usual_us: int, limit_s: float) -> None:
    assert hang.limit_s(usual_us) == limit_s


def test_an_old_request_fails_the_trial_with_its_age_and_the_limit() -> None:
    finding = judge(6.0, requests=40, in_flight=3, oldest_in_flight_s=5.25)
    assert finding == Sick(
        Reason.HUNG, "The oldest request has waited 5.2 s for its answer (limit 5 s)."
    )
    slow = replace(ATTEMPT, incumbent_us_p95=1_000_000)
    younger = judge(6.0, slow, requests=40, in_flight=3, oldest_in_flight_s=5.25)
    assert isinstance(younger, Watching), "the previous release was as slow"


def test_no_release_is_confirmed_while_a_request_is_suspiciously_old() -> None:
    assert isinstance(judge(CONFIRM_S, requests=40, oldest_in_flight_s=1.3), Watching)
    assert judge(CONFIRM_S, requests=40, oldest_in_flight_s=1.2) is HEALTHY


def test_a_release_is_not_confirmed_without_an_answer_where_there_was_traffic() -> None:
    assert isinstance(judge(CONFIRM_S, refused=8), Watching)
    assert isinstance(judge(LONGEST_S, refused=8), Watching)
    assert judge(CONFIRM_S, requests=100, refused=1) is HEALTHY
    assert judge(LONGEST_S + 1, refused=8) == Sick(
        Reason.SILENT,
        "The release answered none of 8 requests in 63 s; the previous release answered 5000.",
    )


def test_a_release_without_requests_is_watched_for_longer_and_not_blamed() -> None:
    assert isinstance(judge(CONFIRM_S), Watching)
    assert isinstance(judge(LONGEST_S), Watching)
    assert judge(LONGEST_S + 1) is HEALTHY


@pytest.mark.parametrize(
    ("answers", "answers_s", "refused", "healthy"),
    [
        (0, 0.0, 0, True),  # no client asks this device
        (0, 0.0, 5, True),  # no request was answered before, either
        (9, 0.05, 0, True),  # a request in 20 s: a trial may have none
        (9, 0.05, 1, False),
        (9, 1.0, 0, False),
    ],
)
def test_silence_is_compared_with_the_previous_release(
    answers: int, answers_s: float, refused: int, healthy: bool
) -> None:
    attempt = replace(ATTEMPT, incumbent_answers=answers, incumbent_answers_s=answers_s)
    assert (judge(CONFIRM_S, attempt, refused=refused) is HEALTHY) is healthy


def test_the_rate_before_a_trial_is_that_of_the_last_minute() -> None:
    full = QualityWindow(release="1", since=0.0, opened=0.0, until=100.0, requests=1_000)
    filling = QualityWindow(release="1", since=100.0, opened=100.0, requests=20, errors=10)
    windows = Windows(full=full, filling=filling)
    assert window.answers_s(windows, "1", 101.0) == pytest.approx(10.0)
    assert window.answers_s(windows, "1", 200.0) == pytest.approx(0.1)
    assert window.answers_s(windows, "2", 200.0) == 0.0
    assert window.answers_s(Windows(), "1", 200.0) == 0.0


# After the confirmation.


def probe(device: Device, status: ServingStatus | None, *ran: str, hung: bool = False) -> None:
    alive = status is not None
    device.hear(ServingProbed(status=status, alive=alive, draw=0.5, ran=ran, hung=hung))


def applied(device: Device) -> Apply:
    found = device.did(Apply)
    assert isinstance(found, Apply)
    return found


def replaced(device: Device) -> None:
    """Release 3 is confirmed."""
    to_watching(device, "3")
    device.now += 10
    look(device, serving("3"))
    confirmed_is_served(device, "3")


def isolated(device: Device) -> dict[str, str]:
    return {one.model: one.reason for one in device.state.soft.crashes.isolated}


def errors(device: Device) -> dict[str, int]:
    return {one.release: one.errors for one in device.state.soft.models["digits"].tallies}


def test_a_confirmed_release_that_hangs_is_moved_and_its_requests_are_counted() -> None:
    device = installed("1")
    usual = {"requests": 9, "latency_us_p95": 2_000, "in_flight": 4}
    probe(device, counted("1", oldest_in_flight_s=4.9, **usual))
    assert isolated(device) == {}
    probe(device, counted("1", oldest_in_flight_s=5.1, **usual))
    assert isolated(device) == {"digits": IsolationReason.HUNG}
    apply = applied(device)
    assert ([one.isolation for one in apply.models], apply.anew) == (["process"], False)
    assert errors(device) == {"1": 4}
    device.hear(Activated(job=apply.job, status=serving("1")))
    probe(device, counted("1", oldest_in_flight_s=9.0, **usual))
    assert errors(device) == {"1": 4}, "they are counted once"


def test_a_process_that_does_not_get_rid_of_a_request_is_started_again() -> None:
    device = installed("1")
    for for_s, anew in ((limits.STUCK_S - 1, False), (limits.STUCK_S + 1, True)):
        stuck = (StuckRelease(model="digits", release="0", for_s=for_s),)
        probe(device, replace(serving("1"), stuck=stuck))
        found = [one.anew for one in device.effects if isinstance(one, Apply)]
        assert found == [True] * anew


def test_a_process_that_was_ended_as_it_hung_isolates_the_model_that_ran() -> None:
    device = installed("1")
    probe(device, None, "digits", hung=True)
    assert isolated(device) == {"digits": IsolationReason.HUNG}
    assert errors(device) == {"1": 1}


def test_an_isolation_that_an_apply_finds_is_applied() -> None:
    device = installed("1")
    probe(device, None)
    device.now = device.state.soft.switch_at or 0.0
    device.hear(TimerFired(draw=0.5))
    first = applied(device)
    device.hear(Activated(job=first.job, status=serving("1"), ran=("digits",), hung=True))
    again = applied(device)
    assert again.job != first.job
    assert [one.isolation for one in again.models] == ["process"]


# The way back.


def on_the_way_back() -> Device:
    """A device that confirmed release 3 and is ordered back to release 1."""
    device = installed("1")
    replaced(device)
    check_in(device, offer("1", rollout="ro-3", action="revert"))
    assert device.stage is Stage.ACTIVATING
    return device


def failed(device: Device, reason: str, *, ran: Sequence[str] = (), hung: bool = False) -> None:
    job = device.job(Apply)
    device.hear(
        ActivationFailed(job=job, reason=reason, detail="", draw=0.5, ran=tuple(ran), hung=hung)
    )


@pytest.mark.parametrize("reason", [Reason.CRASH, Reason.LOAD])
def test_the_good_release_is_not_blamed_for_a_process_that_does_not_answer(reason: str) -> None:
    device = on_the_way_back()
    for _ in range(2 * limits.MISSED_PROBES):
        failed(device, reason, ran=("digits",), hung=True)
        assert device.stage is Stage.ACTIVATING
        device.now = device.state.soft.switch_at or 0.0
        device.hear(TimerFired(draw=0.5))
    assert isolated(device) == {}, "the release that hung is left"
    assert errors(device)["3"] >= 1
    device.hear(Activated(job=device.job(Apply), status=serving("1")))
    kinds = [(one.kind, one.release) for one in device.state.spool]
    assert (OutcomeKind.REFUSED, "1") not in kinds
    assert kinds[-1] == (OutcomeKind.REVERTED, "3")


def test_the_blame_of_a_release_ends_with_it() -> None:
    device = installed("1")
    replaced(device)
    probe(device, None, "digits", hung=True)
    assert isolated(device) == {"digits": IsolationReason.HUNG}
    answer(device, offer("1", rollout="ro-3", action="revert"))
    assert isolated(device) == {}
    assert [one.isolation for one in applied(device).models] == ["shared"]
