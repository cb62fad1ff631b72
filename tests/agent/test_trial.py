"""A trial is judged by liveness, error ratio, confidence and time."""

from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.agent import error_rate, limits, load, trial
from edgefleet.agent.state import (
    Attempt,
    Incumbent,
    Load,
    LoadMark,
    Mark,
    Neighbour,
    QualityWindow,
    Watch,
)
from edgefleet.agent.trial import HEALTHY, INTERRUPTED, Sick, Watching
from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Reason, Sketches
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import CpuUse, LiveStats, ServingStatus
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
    incumbent=Incumbent(
        release="1", requests=500, errors=5, confidence_sum=450.0, confidence_count=500
    ),
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
    few = serving("2", requests=99 + limits.ERROR_MIN_REQUESTS, errors=109)
    assert isinstance(judge(few, 1.0, begun), Watching)
    enough = serving("2", requests=100 + limits.ERROR_MIN_REQUESTS, errors=110)
    assert reason(judge(enough, 1.0, begun)) is Reason.ERRORS
    borne = serving("2", requests=200, errors=105)
    assert isinstance(judge(borne, 1.0, begun), Watching), "five of a hundred are allowed"


@pytest.mark.parametrize(
    ("errors", "requests", "is_bad"),
    [
        (1, 10, False),
        (2, 20, False),
        (4, 10, False),
        (5, 10, True),
        (8, 26, True),
        (16, 100, False),
        (17, 100, True),
    ],
)
def test_a_few_failed_requests_are_chance(errors: int, requests: int, is_bad: bool) -> None:
    assert error_rate.is_too_high(errors, requests) is is_bad


def test_a_release_of_which_three_percent_of_the_requests_fail_passes_its_trials() -> None:
    """A trial is probed after every request."""
    draw = Random(7)
    failed = 0
    for _ in range(1000):
        errors = 0
        for requests in range(1, 121):
            errors += draw.random() < 0.03
            if error_rate.is_too_high(errors, requests):
                failed += 1
                break
    assert failed <= 1


def test_confidence_is_that_of_the_trial_against_the_incumbents() -> None:
    begun = trial.begin(ATTEMPT, serving("2", confidence_sum=50.0, confidence_count=50), 0.0)
    few = serving("2", confidence_sum=50.0, confidence_count=69)
    assert isinstance(judge(few, 1.0, begun), Watching)
    low = serving("2", confidence_sum=50.0 + 100 * 0.5, confidence_count=150)
    assert reason(judge(low, 1.0, begun)) is Reason.CONFIDENCE
    near = serving("2", confidence_sum=50.0 + 50_000 * 0.81, confidence_count=50_050)
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


TRIAL_S = 40.0  # after the activation


def cpu(status: ServingStatus, machine_s: float, serving_s: float, worker_s: float = 0.0):
    """The status with these CPU counters, on two cores."""
    mine, *others = status.models
    mine = replace(mine, worker_cpu_s=worker_s)
    counters = CpuUse(machine_s=machine_s, serving_s=serving_s, cores=2)
    return replace(status, cpu=counters, models=(mine, *others))


def beside(
    requests: int,
    errors: int,
    us: int,
    *,
    release: str = "7",
    trial_cores: float = 1.5,
    other_cores: float = 0.2,
    before: tuple[float, float] | None = (0.2, 0.1),
) -> object:
    """The finding on a sound release in trial, beside a model that served these requests.

    ``before`` are the cores that other programs and serving used in the minute before the trial;
    the trial uses ``trial_cores``, the other programs ``other_cores``.
    """
    marks = ()
    begun, spent, mine = serving("2"), 0.0, 0.0
    if before is not None:
        spent, mine = 60 * before[0], 60 * before[1]
        zero = CpuUse(machine_s=0.0, serving_s=0.0, cores=2)
        marks = (LoadMark(at=-60.0, pid=100, cpu=zero),)
        begun = cpu(serving("2"), spent + mine, mine, worker_s=3.0)
    watch = trial.begin(ATTEMPT, begun, 0.0, (NEIGHBOUR,), marks)
    sketches = Sketches(latency={bucket(us): requests})
    stats = LiveStats(requests=500 + requests, errors=10 + errors, sketches=sketches)
    own = replace(serving_model(release, model="detector"), stats=stats)
    status = serving("2")
    if before is not None:
        served = mine + TRIAL_S * (before[1] + trial_cores)
        machine = spent + served + TRIAL_S * other_cores
        status = cpu(status, machine, served, 3.0 + TRIAL_S * trial_cores)
    return judge(replace(status, models=(*status.models, own)), TRIAL_S, watch)


def test_a_trial_that_harms_another_model_fails() -> None:
    assert isinstance(beside(100, 3, 1000), Watching), "as before the trial"
    assert reason(beside(100, 8, 1000)) is Reason.NEIGHBOUR
    assert reason(beside(100, 0, 4000)) is Reason.NEIGHBOUR
    assert isinstance(beside(100, 0, 2000), Watching), "slower, but within the limit"
    few = limits.NEIGHBOUR_REQUESTS - 1
    assert isinstance(beside(few, few, 9000), Watching), "too few requests to judge"


@pytest.mark.parametrize(("errors", "us"), [(0, 4000), (8, 1000)])
def test_a_trial_is_not_blamed_for_the_load_of_other_programs(errors: int, us: int) -> None:
    assert reason(beside(100, errors, us)) is Reason.NEIGHBOUR
    begun = beside(100, errors, us, trial_cores=0.3, other_cores=1.6)
    assert isinstance(begun, Watching), "a program began that takes both cores"
    more = beside(100, errors, us, trial_cores=0.8, other_cores=1.1)
    assert isinstance(more, Watching), "the other programs grew by more than the trial"
    always = beside(100, errors, us, trial_cores=0.9, other_cores=1.0, before=(1.0, 0.1))
    assert reason(always) is Reason.NEIGHBOUR, "they have always used one core"


@pytest.mark.parametrize(("errors", "us"), [(0, 4000), (8, 1000)])
def test_a_trial_that_leaves_cores_free_is_not_blamed(errors: int, us: int) -> None:
    small = beside(100, errors, us, trial_cores=0.05)
    assert isinstance(small, Watching)
    half = beside(100, errors, us, trial_cores=0.5)
    assert isinstance(half, Watching), "of 1.7 free cores it took 0.5"
    assert isinstance(beside(100, errors, us, before=None), Watching), "the CPU is not known"


def test_a_trial_is_not_blamed_for_the_work_that_it_took_over() -> None:
    """The release before it used as many cores, in the shared process."""
    marks = (LoadMark(at=-60.0, pid=100, cpu=CpuUse(machine_s=0.0, serving_s=0.0, cores=1)),)
    earlier = load.before(marks, cpu(serving("2"), 54.0, 48.0), 0.0)
    assert earlier == Load(cores=2, other=pytest.approx(0.1), serving=pytest.approx(0.8))
    assert not load.is_cause(earlier, Load(cores=1, other=0.1, serving=0.85), 0.7)
    assert load.is_cause(earlier, Load(cores=1, other=0.0, serving=1.0), 0.7)


def test_the_load_before_a_trial_is_without_the_load_of_its_release() -> None:
    marks: tuple[LoadMark, ...] = ()
    for now in range(0, 100, 5):
        marks = load.follow(marks, cpu(serving("1"), 0.2 * now, 0.1 * now), float(now))
    assert [mark.at for mark in marks] == [0.0, 60.0]
    loaded = cpu(serving("2"), 0.2 * 100 + 30, 0.1 * 100 + 30)
    found = load.before(marks, loaded, 100.0)
    assert found == Load(cores=2, other=pytest.approx(0.1), serving=pytest.approx(0.1))
    assert load.follow(marks, replace(loaded, pid=101), 101.0) == (
        LoadMark(at=101.0, pid=101, cpu=loaded.cpu),
    ), "a new process has new counters"
    assert load.before((), loaded, 100.0) is None


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
