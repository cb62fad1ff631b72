"""A trial is judged by liveness, error ratio, confidence and time."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from edgefleet.agent import limits, trial
from edgefleet.agent.state import Attempt, Mark, Neighbour, QualityWindow, Watch
from edgefleet.agent.trial import HEALTHY, INTERRUPTED, Sick, Watching
from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Reason, Sketches
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats, ServingStatus
from support.agent_world import serving, serving_model, trial_crashed

CONFIRM_S = 60.0
QUALITY = Quality(
    output="probabilities", scores="probabilities", max_confidence_drop=0.1, min_requests=20
)
ATTEMPT = Attempt(
    number=1,
    rollout="ro-1",
    action="install",
    model="digits",
    release="2",
    manifest_sha256="0" * 64,
    confirm_after_s=CONFIRM_S,
    max_attempts=2,
    slot="b",
    leaving="1",
    incumbent_confidence=0.9,
)
BEGUN = trial.begin(ATTEMPT, serving("2"), 0.0)


def judge(
    status: ServingStatus | None, now: float, watch: Watch = BEGUN, *, alive: bool = True
) -> object:
    return trial.judge(ATTEMPT, QUALITY, watch, status, alive=alive, now=now)


def watched(status: ServingStatus | None, now: float, watch: Watch = BEGUN) -> Watch:
    finding = judge(status, now, watch)
    assert isinstance(finding, Watching)
    return finding.watch


def reason(finding: object) -> Reason:
    assert isinstance(finding, Sick)
    return finding.reason


def test_it_is_healthy_once_it_stood_long_enough_and_not_before() -> None:
    assert isinstance(judge(serving("2"), CONFIRM_S - 0.1), Watching)
    assert judge(serving("2"), CONFIRM_S) is HEALTHY


def test_another_process_interrupts_the_trial_and_does_not_end_it() -> None:
    assert judge(serving("2", pid=101), CONFIRM_S) is INTERRUPTED
    assert judge(None, 1.0, alive=False) is INTERRUPTED


def any_new_pid_is_its_fault(status: ServingStatus | None, *, alive: bool = True) -> object:
    """Planted bug: each end of the serving process is attributed to the trial."""
    if not alive or (status is not None and status.pid != BEGUN.start.pid):
        return Sick(Reason.CRASH, "The serving process ended.")
    return judge(status, 1.0, alive=alive)


def check_blame(judged: Callable[..., object]) -> None:
    """The trial is to blame for the end of its worker, and for no other end."""
    assert isinstance(judged(trial_crashed("1")), Sick)
    assert not isinstance(judged(None, alive=False), Sick)
    assert not isinstance(judged(serving("2", pid=101)), Sick)


def test_a_trial_that_is_blamed_for_any_new_pid_is_found() -> None:
    check_blame(lambda status, *, alive=True: judge(status, 1.0, alive=alive))
    with pytest.raises(AssertionError):
        check_blame(any_new_pid_is_its_fault)


def test_the_end_of_its_worker_is_a_crash_although_the_old_release_answers() -> None:
    ended = replace(serving("1").models[0], trial_ended="The worker of release 2 crashed.")
    finding = judge(replace(serving("1"), models=(ended,)), 1.0)
    assert finding == Sick(Reason.CRASH, "The worker of release 2 crashed.")


@pytest.mark.parametrize("look", [None, serving("2", ready=False), serving("1")])
def test_a_look_without_a_sound_answer_starts_the_time_anew(look: ServingStatus | None) -> None:
    watch = watched(look, 50.0)
    watch = watched(serving("2"), 51.0, watch)
    assert isinstance(judge(serving("2"), 50.9 + CONFIRM_S, watch), Watching)
    assert judge(serving("2"), 51.0 + CONFIRM_S, watch) is HEALTHY


def test_the_first_sound_answer_after_a_miss_confirms_nothing() -> None:
    watch = watched(None, 50.0)
    assert isinstance(judge(serving("2"), 50.0 + CONFIRM_S, watch), Watching)


@pytest.mark.parametrize("other", [serving("2", ready=False), serving("1")])
def test_a_process_that_answers_without_the_release_has_lost_it(other: ServingStatus) -> None:
    watch = BEGUN
    for now in range(1, limits.MISSED_PROBES):
        watch = watched(other, float(now), watch)
    assert reason(judge(other, float(limits.MISSED_PROBES), watch)) is Reason.CRASH
    assert judge(None, float(limits.MISSED_PROBES), watch) is INTERRUPTED


def test_errors_count_from_the_start_of_the_trial_and_only_on_enough_requests() -> None:
    begun = trial.begin(ATTEMPT, serving("2", requests=100, errors=100), 0.0)
    few = serving("2", requests=99 + limits.ERROR_MIN_REQUESTS, errors=101)
    assert isinstance(judge(few, 1.0, begun), Watching)
    enough = serving("2", requests=100 + limits.ERROR_MIN_REQUESTS, errors=101)
    assert reason(judge(enough, 1.0, begun)) is Reason.ERRORS
    borne = serving("2", requests=200, errors=105)
    assert isinstance(judge(borne, 1.0, begun), Watching), "five of a hundred are allowed"


def test_confidence_is_that_of_the_trial_against_the_incumbents() -> None:
    begun = trial.begin(ATTEMPT, serving("2", confidence_sum=50.0, confidence_count=50), 0.0)
    few = serving("2", confidence_sum=50.0 + 9.5, confidence_count=69)
    assert isinstance(judge(few, 1.0, begun), Watching)
    low = serving("2", confidence_sum=50.0 + 20 * 0.79, confidence_count=70)
    assert reason(judge(low, 1.0, begun)) is Reason.CONFIDENCE
    near = serving("2", confidence_sum=50.0 + 20 * 0.81, confidence_count=70)
    assert isinstance(judge(near, 1.0, begun), Watching)


BEFORE = QualityWindow(
    release="7",
    since=0.0,
    requests=100,
    errors=2,
    sketches=Sketches(latency={bucket(1000): 100}),
)
NEIGHBOUR = Neighbour(
    start=Mark(pid=100, model="detector", release="7", stats=LiveStats(requests=500, errors=10)),
    before=BEFORE,
)


def beside(requests: int, errors: int, us: int, *, release: str = "7") -> object:
    """The finding on a sound release in trial, beside a model that served these requests."""
    watch = trial.begin(ATTEMPT, serving("2"), 0.0, (NEIGHBOUR,))
    sketches = Sketches(latency={bucket(us): requests})
    stats = LiveStats(requests=500 + requests, errors=10 + errors, sketches=sketches)
    other = replace(serving_model(release, model="detector"), stats=stats)
    status = serving("2")
    return judge(replace(status, models=(*status.models, other)), 1.0, watch)


def test_a_trial_that_harms_another_model_fails() -> None:
    assert isinstance(beside(100, 3, 1000), Watching), "as before the trial"
    assert reason(beside(100, 8, 1000)) is Reason.NEIGHBOUR
    assert reason(beside(100, 0, 4000)) is Reason.NEIGHBOUR
    assert isinstance(beside(100, 0, 2000), Watching), "slower, but within the limit"
    few = limits.NEIGHBOUR_REQUESTS - 1
    assert isinstance(beside(few, few, 9000), Watching), "too few requests to judge"


def test_another_model_that_was_switched_in_between_is_not_compared() -> None:
    assert isinstance(beside(100, 50, 9000, release="8"), Watching)


def test_the_message_about_another_model_names_it_with_the_limit() -> None:
    found = beside(100, 0, 4000)
    assert isinstance(found, Sick)
    assert found.detail == (
        "The p95 latency of detector is 4.0 times that before the trial (limit 3 times)."
    )
    found = beside(100, 8, 1000)
    assert isinstance(found, Sick)
    assert found.detail == ("The error rate of detector rose by 6.0% during the trial (limit 5%).")
