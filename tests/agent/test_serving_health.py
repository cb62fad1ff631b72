"""The health of serving, as the agent observes and reports it."""

from msgspec.structs import replace

from edgefleet.agent import limits
from edgefleet.agent.agent_status import status_of
from edgefleet.agent.effect import Apply
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    CheckInAnswered,
    ServingProbed,
    TimerFired,
)
from edgefleet.agent.narration import narrate
from edgefleet.agent.stored import from_store, to_store
from edgefleet.protocol.device import CheckInAnswer
from edgefleet.protocol.serving import ServingStatus
from edgefleet.protocol.serving_health import (
    ENDS_WITHIN_S,
    OUT_OF_MEMORY,
    EndsView,
    ServingEnds,
    ServingHealth,
    end_cause,
    view_of,
)
from support.agent_steps import check_in, installed, to_watching
from support.agent_world import Device, serving


def next_report(device: Device) -> ServingHealth | None:
    """The report on serving of the next check-in."""
    sent = device.state.soft.sent
    if sent is not None:
        answer = CheckInAnswer(interval_s=60.0, acked=sent.outcomes)
        device.hear(CheckInAnswered(seq=sent.seq, answer=answer, draw=0.5))
    device.now = max(device.now, device.state.soft.checkin_at)
    device.hear(TimerFired(draw=0.5))
    return device.checked_in().serving


def end(device: Device, *causes: str, ran: tuple[str, ...] = ()) -> None:
    """The serving process has ended by itself."""
    device.hear(ServingProbed(status=None, alive=False, draw=0.5, ran=ran, ends=causes))


def restore(device: Device, release: str = "1", *, pid: int = 200) -> None:
    """The agent starts the process again."""
    if device.state.soft.switch is None:
        device.now += 60.0
        device.hear(TimerFired(draw=0.5))
    job = device.state.soft.switch
    assert job is not None
    device.hear(Activated(job=job, status=serving(release, pid=pid)))


def test_a_device_on_which_all_is_well_reports_nothing() -> None:
    assert next_report(installed()) is None


def test_a_process_that_ended_is_down_until_its_release_is_served_again() -> None:
    device = installed()
    end(device, "SIGKILL")
    died = device.now
    device.now += 40.0
    report = next_report(device)
    assert report is not None
    assert (report.down, report.down_s) == (("digits",), device.now - died)
    assert report.ends == (ServingEnds(cause="SIGKILL", count=1, last_s=device.now - died),)
    assert report.by_model == {"digits": 1}
    restore(device)
    report = next_report(device)
    assert report is not None
    assert (report.down, report.down_s, report.by_model) == ((), None, {"digits": 1})


def test_a_process_that_never_starts_is_down_with_the_cause() -> None:
    device = Device(from_store(to_store(installed().state)))
    device.boot()
    job = device.state.soft.switch
    assert job is not None
    failed = ActivationFailed(job=job, reason="load", detail="port in use", draw=0.5)
    before = device.state
    device.hear(failed)
    told = [text for _, text in narrate(before, failed, device.state, device.now)]
    assert told == [
        "Serving is down: no release of digits is served.",
        "Serving does not start: port in use",
    ]
    report = next_report(device)
    assert report is not None
    assert report.down == ("digits",)
    status = status_of(device.state, device.now, version="1", device="d", hub="h")
    assert status.problems[0].endswith("port in use")
    restore(device)
    assert device.state.soft.health.down_cause == ""


def test_ends_are_counted_by_cause_and_forgotten_after_an_hour() -> None:
    device = installed()
    for cause in ("SIGSEGV", "SIGKILL", "SIGSEGV", OUT_OF_MEMORY):
        end(device, cause)
        restore(device)
    report = next_report(device)
    assert report is not None
    assert [(one.cause, one.count) for one in report.ends] == [
        (OUT_OF_MEMORY, 1), ("SIGSEGV", 2), ("SIGKILL", 1),
    ]  # fmt: skip
    device.now += ENDS_WITHIN_S
    assert next_report(device) is None


def test_only_so_many_ends_are_kept() -> None:
    device = installed()
    end(device, *["SIGSEGV"] * (limits.ENDS_NOTED + 50))
    report = next_report(device)
    assert report is not None
    assert [one.count for one in report.ends] == [limits.ENDS_NOTED]


def test_the_next_release_is_not_blamed_for_the_ends_of_the_last_one() -> None:
    device = installed("1")
    end(device, "SIGSEGV")
    restore(device)
    check_in(device)
    to_watching(device, "2", pid=200)
    device.now += 60.0
    device.hear(ServingProbed(status=serving("2", pid=200, on_trial=True), alive=True, draw=0.5))
    report = next_report(device)
    assert device.mine.active == "b"
    assert report is not None
    assert (report.by_model, [one.count for one in report.ends]) == ({}, [1])


def test_a_model_that_is_loaded_and_not_ready_is_down() -> None:
    device = installed()
    device.hear(ServingProbed(status=serving("1", ready=False), alive=True, draw=0.5))
    report = next_report(device)
    assert report is not None
    assert report.down == ("digits",)
    assert report.ends == ()


def test_a_worker_that_ended_is_counted_once() -> None:
    device = installed()
    (mine,) = serving("1", ready=False).models
    status = ServingStatus(pid=100, models=(replace(mine, confirmed_ended="SIGSEGV"),))
    for _ in range(3):
        device.hear(ServingProbed(status=status, alive=True, draw=0.5))
    report = next_report(device)
    assert report is not None
    assert [(one.cause, one.count) for one in report.ends] == [("SIGSEGV", 1)]
    assert report.by_model == {"digits": 1}


def test_an_exit_code_is_named() -> None:
    assert [end_cause(code) for code in (-9, -11, -34, 1, 0, None)] == [
        "SIGKILL", "SIGSEGV", "signal_34" if end_cause(-34) != "SIGRTMIN" else "SIGRTMIN",
        "exit_1", "exit_0", "unknown",
    ]  # fmt: skip


def test_people_read_since_when_and_by_what() -> None:
    ends = (
        ServingEnds(cause=OUT_OF_MEMORY, count=7, last_s=10.0),
        ServingEnds(cause="exit_3", count=1, last_s=20.0),
    )
    view = view_of(ServingHealth(down_s=30.0, down=("digits",), ends=ends), 1000.0)
    assert view is not None
    assert (view.status, view.down_since, view.since) == ("down", 970.0, 970.0)
    assert view.ends[0] == EndsView(cause=OUT_OF_MEMORY, count=7, last_at=990.0)
    assert view.text == (
        "Serving is down: no release of digits is served. The serving process ended by itself "
        "8 times in the last hour (7x SIGKILL (out of memory), 1x exit code 3)."
    )
    assert view_of(ServingHealth(), 1000.0) is None


def outdated(*, answered_s: float | None) -> ServingStatus:
    """The status of a process of an older version."""
    (mine,) = serving("1").models
    mine = replace(mine, stats=replace(mine.stats, last_answer_s=answered_s))
    return ServingStatus(pid=100, version="0.0.1", models=(mine,))


def test_a_process_of_another_version_is_replaced_once_at_an_idle_moment() -> None:
    device = installed()
    busy = outdated(answered_s=limits.IDLE_S / 2)
    device.hear(ServingProbed(status=busy, alive=True, draw=0.5))
    assert "Apply" not in device.kinds(), "clients use it"
    idle = outdated(answered_s=limits.IDLE_S)
    device.hear(ServingProbed(status=idle, alive=True, draw=0.5))
    applied = device.did(Apply)
    assert isinstance(applied, Apply)
    assert (applied.swap, applied.anew) == (True, False)
    device.hear(Activated(job=applied.job, status=idle))
    device.hear(ServingProbed(status=idle, alive=True, draw=0.5))
    assert "Apply" not in device.kinds(), "the installed program is of that version"


def test_a_process_that_does_not_say_its_version_is_left_alone() -> None:
    device = installed()
    device.hear(ServingProbed(status=serving("1"), alive=True, draw=0.5))
    assert device.kinds() == ()


def test_no_process_is_replaced_for_its_version_beside_a_trial() -> None:
    device = installed()
    check_in(device)
    to_watching(device, "2")
    device.hear(ServingProbed(status=outdated(answered_s=None), alive=True, draw=0.5))
    assert not device.state.soft.swapped
