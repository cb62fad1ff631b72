"""The agent's core in dialogue with the hub and its own device."""

import msgspec
import pytest

from edgefleet.agent import limits
from edgefleet.agent.effect import Apply, Fetch, FetchManifest, MovePointer, Prove
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    CheckInFailed,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    StagingFailed,
    TimerFired,
)
from edgefleet.agent.state import Crashes
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import Offer, OutcomeKind, Phase, Reason
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.serving import ProveResult
from support.agent_steps import (
    answer,
    check_in,
    installed,
    look,
    stage_release,
    to_watching,
)
from support.agent_world import (
    FACTS,
    Device,
    manifest,
    manifest_sha256,
    offer,
    serving,
    trial_crashed,
)


def spooled(device: Device) -> list[tuple[OutcomeKind, str]]:
    return [(outcome.kind, outcome.reason) for outcome in device.state.spool]


def test_a_good_release_goes_from_offer_to_confirmed() -> None:
    device = Device()
    device.boot(whole=())
    assert device.kinds() == ("SendCheckIn",)
    assert (device.checked_in().models, device.checked_in().full) == ((), True)
    answer(device, offer("1"))
    assert device.kinds() == ("FetchManifest",)
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256("1"),
            manifest=manifest("1"),
        )
    )
    assert (device.kinds(), device.did(Fetch).file) == (("Fetch",), "golden.npz")  # type: ignore[union-attr] - did() gives a Fetch
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    assert (device.kinds(), device.did(Fetch).file) == (("Fetch",), "model.onnx")  # type: ignore[union-attr] - did() gives a Fetch
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    assert device.kinds() == ("Prove",)
    device.hear(Proved(model="digits", job=device.job(Prove), result=ProveResult(passed=True)))
    assert device.kinds() == ("SendCheckIn",)
    said = device.checked_in()
    assert (said.models[0].phase, [one.kind for one in said.outcomes]) == (
        Phase.STAGED,
        [OutcomeKind.TRIAL_STARTED],
    )
    answer(device, offer("1"))
    assert device.kinds() == ("Apply",)
    device.hear(Activated(job=device.job(Apply), status=serving("1", on_trial=True)))
    assert device.kinds() == (), "the pointer moves at the confirmation"
    device.now += 9
    look(device, serving("1"))
    assert device.stage is Stage.WATCHING
    device.now += 1
    look(device, serving("1"))
    assert device.kinds() == ("MovePointer", "Apply", "SendCheckIn")
    assert device.served() == ("a", None)
    said = device.checked_in()
    assert (said.models[0].release, [one.kind for one in said.outcomes]) == (
        "1",
        [OutcomeKind.CONFIRMED],
    )
    assert (device.mine.active, device.holds("a")) == ("a", "1")


def test_the_next_release_goes_into_the_other_slot_and_the_old_one_stays() -> None:
    device = installed("1")
    to_watching(device, "2")
    device.now += 10
    look(device, serving("2"))
    assert (device.mine.active, device.holds("a"), device.holds("b")) == ("b", "1", "2")


@pytest.mark.parametrize("reason", ["golden_failed", "load_failed"])
def test_a_release_that_fails_its_golden_set_is_refused_and_nothing_is_switched(
    reason: str,
) -> None:
    device = installed("1")
    check_in(device, offer("4"))
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256("4"),
            manifest=manifest("4"),
        )
    )
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(
        Proved(
            model="digits", job=device.job(Prove), result=ProveResult(passed=False, reason=reason)
        )  # type: ignore[arg-type] - parametrised with its two values
    )
    assert device.kinds() == ("RemoveSlot", "SendCheckIn")
    assert spooled(device) == [(OutcomeKind.REFUSED, reason)]
    assert (device.mine.active, device.holds("a"), device.holds("b")) == ("a", "1", None)
    answer(device, offer("4"))
    assert device.stage is Stage.IDLE, "the same offer is accepted once"
    check_in(device, offer("4", rollout="ro-again"))
    assert device.stage is Stage.MANIFEST, "another rollout may offer the release again"


def test_a_release_whose_worker_dies_in_trial_is_left_for_the_old_one() -> None:
    device = installed("1")
    to_watching(device, "3")
    look(device, trial_crashed("1"))
    assert device.kinds() == ("Apply", "SendCheckIn")
    assert device.served() == ("a", None)
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "serving_crashed")]
    assert device.checked_in().models[0].phase is Phase.REVERTING
    job = device.job(Apply)
    answer(device)
    device.hear(Activated(job=job, status=serving("1", pid=101)))
    assert device.kinds() == ("RemoveSlot", "SendCheckIn")
    assert device.checked_in().models[0].release == "1"
    assert (device.stage, device.mine.active) == (Stage.IDLE, "a")


def test_errors_in_trial_fail_it() -> None:
    device = installed("1")
    to_watching(device, "3")
    look(device, serving("3", requests=100, errors=5))
    assert device.stage is Stage.WATCHING, "5 % is allowed"
    look(device, serving("3", requests=100, errors=16))
    assert device.stage is Stage.WATCHING, "chance explains it"
    look(device, serving("3", requests=100, errors=17))
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "inference_errors")]


def test_confidence_below_the_incumbents_fails_the_trial() -> None:
    device = installed("1")
    look(device, serving("1", requests=50, confidence_sum=47.5, confidence_count=50))
    to_watching(device, "3")
    look(device, serving("3", requests=9, confidence_sum=4.5, confidence_count=9))
    assert device.stage is Stage.WATCHING, "nine requests are too few to judge"
    look(device, serving("3", requests=120, confidence_sum=48.0, confidence_count=120))
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "confidence_drop")]


def test_an_agent_that_was_killed_before_a_trial_still_knows_the_incumbent() -> None:
    device = installed("1")
    look(device, serving("1", requests=500, confidence_sum=475.0, confidence_count=500))
    check_in(device, offer("3"))
    stage_release(device, "3")
    device.boot(serving=serving("1", requests=500, confidence_sum=475.0, confidence_count=500))
    check_in(device, offer("3"))
    device.hear(Activated(job=device.job(Apply), status=serving("3")))
    look(device, serving("3", requests=50, confidence_sum=20.0, confidence_count=50))
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "confidence_drop")]


def goes_on(device: Device, release: str, *, pid: int) -> None:
    """The serving process is started again with the trial, whose healthy time starts anew."""
    assert device.stage is Stage.WATCHING
    assert device.state.soft.switch_at is not None
    device.now = device.state.soft.switch_at
    device.hear(TimerFired(draw=0.5))
    assert device.served() == ("a", "b")
    device.hear(Activated(job=device.job(Apply), status=serving(release, pid=pid, on_trial=True)))
    device.now += 9
    look(device, serving(release, pid=pid, on_trial=True))
    assert device.stage is Stage.WATCHING
    device.now += 1
    look(device, serving(release, pid=pid, on_trial=True))
    assert [kind for kind, _ in spooled(device)] == [OutcomeKind.CONFIRMED]


def test_neighbour_crashes_during_trial_trial_goes_on() -> None:
    device = installed("1")
    to_watching(device, "2")
    device.now += 5
    device.hear(ServingProbed(status=None, alive=False, draw=0.5, ran=("other",)))
    goes_on(device, "2", pid=101)


def test_shared_process_killed_by_oom_blames_nobody() -> None:
    device = installed("1")
    to_watching(device, "2")
    device.now += 5
    device.hear(ServingProbed(status=None, alive=False, draw=0.5, ran=()))
    assert device.state.soft.crashes == Crashes()
    goes_on(device, "2", pid=101)


def test_serving_that_does_not_answer_three_looks_in_a_row_is_started_again() -> None:
    device = installed("1")
    to_watching(device, "2")
    look(device, None)
    look(device, None)
    look(device, serving("2"))
    look(device, None)
    look(device, None)
    assert device.state.soft.switch_at is None, "one valid answer resets the count"
    look(device, None)
    goes_on(device, "2", pid=101)


def test_neighbours_that_crash_all_the_time_do_not_make_a_trial_endless() -> None:
    device = installed("1")
    to_watching(device, "2")
    began = device.now
    for pid in range(101, 300):
        look(device, None, alive=False)
        if device.stage is not Stage.WATCHING:
            break
        device.now = device.state.soft.switch_at or device.now
        device.hear(TimerFired(draw=0.5))
        device.hear(Activated(job=device.job(Apply), status=serving("2", pid=pid)))
        device.now += 1
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "serving_crashed")]
    bound_s = limits.TRIAL_STRETCH * 10.0 + limits.TRIAL_SLACK_S
    assert device.now - began < bound_s + limits.RESTART_MAX_S


def test_a_process_that_dies_while_a_trial_is_switched_in_is_tried_again() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    stage_release(device, "2")
    check_in(device, offer("2"))
    for _ in range(limits.MISSED_PROBES):
        device.hear(
            ActivationFailed(job=device.job(Apply), reason=Reason.CRASH, detail="gone", draw=0.5)
        )
        assert device.stage is Stage.ACTIVATING
        device.now = device.state.soft.switch_at or device.now
        device.hear(TimerFired(draw=0.5))
        assert device.served() == ("a", "b")
    device.hear(
        ActivationFailed(job=device.job(Apply), reason=Reason.CRASH, detail="gone", draw=0.5)
    )
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "serving_crashed")]


def test_a_model_that_crashed_the_process_twice_in_an_hour_gets_a_worker() -> None:
    device = installed("1")
    for turn in (1, 2):
        device.hear(ServingProbed(status=None, alive=False, draw=0.5, ran=("digits",)))
        device.now = device.state.soft.switch_at or device.now
        device.hear(TimerFired(draw=0.5))
        applied = device.did(Apply)
        assert isinstance(applied, Apply)
        assert [one.isolation for one in applied.models] == [["shared"], ["process"]][turn - 1]
        device.hear(Activated(job=applied.job, status=serving("1", pid=100 + turn)))


def test_an_unsound_look_starts_the_healthy_time_anew() -> None:
    device = installed("1")
    to_watching(device, "2")
    device.now += 9
    look(device, None)
    device.now += 2
    look(device, serving("2"))
    assert device.stage is Stage.WATCHING
    device.now += 10
    look(device, serving("2"))
    assert device.stage is Stage.IDLE


def test_an_offer_that_vanishes_before_the_trial_cancels_the_attempt() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    stale = device.job(FetchManifest)
    check_in(device, None)
    assert device.kinds() == ("CancelStaging",)
    assert device.stage is Stage.IDLE
    device.hear(
        ManifestOpened(
            model="digits", job=stale, sha256=manifest_sha256("2"), manifest=manifest("2")
        )
    )
    assert device.stage is Stage.IDLE, "the completion of stopped work is ignored"


def test_an_offer_that_changes_before_the_trial_starts_another_attempt() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    check_in(device, offer("3"))
    assert device.kinds() == ("CancelStaging", "FetchManifest")
    assert device.mine.attempt is not None
    assert (device.mine.attempt.release, device.mine.attempt.number) == ("3", 3)


def test_a_recall_in_trial_goes_back_at_once() -> None:
    device = installed("1")
    to_watching(device, "3")
    check_in(device, offer("1", rollout="ro-3", action="revert"))
    assert device.kinds() == ("Apply",)
    device.hear(Activated(job=device.job(Apply), status=serving("1")))
    assert spooled(device) == [(OutcomeKind.REVERTED, "recalled")]
    assert device.checked_in().outcomes[0].release == "3"
    assert device.mine.active == "a"


def test_a_recall_after_confirmation_activates_the_slot_that_still_holds_the_old_one() -> None:
    device = installed("1")
    to_watching(device, "3")
    device.now += 10
    look(device, serving("3"))
    answer(device)
    check_in(device, offer("1", rollout="ro-3", action="revert"))
    assert device.kinds() == ("Apply",)
    device.hear(Activated(job=device.job(Apply), status=serving("1")))
    assert device.kinds() == ("MovePointer", "SendCheckIn")
    assert spooled(device) == [(OutcomeKind.REVERTED, "recalled")]
    assert device.checked_in().outcomes[0].release == "3"
    assert device.mine.active == "a"


def test_an_interrupted_trial_is_tried_again_then_given_up() -> None:
    device = installed("1")
    to_watching(device, "2")
    device.boot(serving=serving("2"))
    assert device.kinds() == ("Apply", "SendCheckIn")
    assert (device.stage, device.mine.attempt.tries) == (Stage.ACTIVATING, 2)  # type: ignore[union-attr] - in trial
    device.boot(serving=serving("2"))
    assert device.stage is Stage.REVERTING
    assert spooled(device)[-1] == (OutcomeKind.TRIAL_FAILED, "trial_interrupted")


def staged() -> Device:
    """A device with a proved release 2 that waits for admission."""
    device = installed("1")
    check_in(device, offer("2"))
    stage_release(device, "2")
    assert device.stage is Stage.ANNOUNCING
    return device


def test_a_trial_waits_for_the_hubs_leave_however_long() -> None:
    device = staged()
    answer(device, offer("2"), acked=())
    for _ in range(20):
        device.now += 600
        device.hear(TimerFired(draw=0.5))
        assert device.checked_in().outcomes[0].kind is OutcomeKind.TRIAL_STARTED
        answer(device, offer("2"), acked=())
    assert (device.stage, device.mine.active) == (Stage.ANNOUNCING, "a")
    check_in(device, offer("2"))
    assert device.kinds() == ("Apply",)


def test_a_trial_does_not_begin_while_the_hub_cannot_be_told() -> None:
    device = staged()
    for _ in range(5):
        device.hear(CheckInFailed(seq=device.checked_in().seq, code="unreachable", draw=0.5))
        assert device.stage is Stage.ANNOUNCING
        device.now = device.state.soft.checkin_at
        device.hear(TimerFired(draw=0.5))
    assert spooled(device) == [(OutcomeKind.TRIAL_STARTED, "")]
    answer(device, offer("2"))
    assert device.stage is Stage.ACTIVATING


def test_what_the_hub_has_not_acknowledged_is_said_again_after_a_failed_check_in() -> None:
    device = installed("1")
    to_watching(device, "3")
    look(device, trial_crashed("1"))
    for _ in range(3):
        said = device.checked_in()
        assert [one.kind for one in said.outcomes] == [OutcomeKind.TRIAL_FAILED]
        device.hear(CheckInFailed(seq=said.seq, code="unreachable", draw=0.5))
        device.now = device.state.soft.checkin_at
        device.hear(TimerFired(draw=0.5))
    answer(device)
    assert spooled(device) == []


@pytest.mark.parametrize("instead", [None, offer("3"), offer("1", action="revert")])
def test_a_start_that_is_no_longer_wanted_is_given_up_and_forgotten(instead: Offer | None) -> None:
    device = staged()
    answer(device, instead, acked=())
    assert spooled(device) == []
    assert device.stage in (Stage.IDLE, Stage.MANIFEST)
    assert device.holds("b") == "2", "the staged files stay for the next offer"


def test_what_is_staged_is_announced_again_without_another_fetch_when_the_offer_returns() -> None:
    device = staged()
    answer(device, None, acked=())
    check_in(device, offer("2"))
    assert device.kinds() == ("SendCheckIn",)
    assert device.stage is Stage.ANNOUNCING


@pytest.mark.parametrize("instead", [None, offer("3"), offer("1", action="revert")])
def test_a_start_that_was_admitted_and_is_no_longer_wanted_is_withdrawn(
    instead: Offer | None,
) -> None:
    device = staged()
    answer(device, instead)
    assert "Apply" not in device.kinds(), "the release did not run, so there is no revert"
    assert spooled(device) == [(OutcomeKind.WITHDRAWN, "")]
    told = device.state.spool[0]
    assert (told.release, told.attempt) == ("2", 2)
    assert device.holds("b") == "2", "the staged files stay for the next offer"


def test_a_release_whose_start_was_withdrawn_is_tried_when_it_is_offered_again() -> None:
    device = staged()
    answer(device, None)
    check_in(device, offer("2"))
    assert spooled(device) == [(OutcomeKind.TRIAL_STARTED, "")]
    assert device.state.spool[0].attempt == 3, "a new start, not the cancelled one"
    check_in(device, offer("2"))
    assert device.kinds() == ("Apply",)


def test_a_device_without_a_release_gives_a_start_up_for_another_release() -> None:
    device = Device()
    device.boot(whole=())
    check_in(device, offer("1"))
    stage_release(device, "1")
    answer(device, offer("2"))
    assert spooled(device) == [(OutcomeKind.WITHDRAWN, "")]
    check_in(device, offer("2"))
    assert (device.stage, device.mine.attempt.release) == (Stage.MANIFEST, "2")  # type: ignore[union-attr] - it began
    check_in(device, offer("1"))
    check_in(device, offer("1"))
    assert device.mine.attempt.release == "1", "and accepts the first offer again"  # type: ignore[union-attr] - it began


def test_a_start_of_which_the_answer_was_lost_is_withdrawn_after_a_restart_without_its_bytes() -> (
    None
):
    device = staged()
    device.boot(whole=("a",), serving=serving("1"))
    check_in(device, None)
    assert spooled(device) == [(OutcomeKind.WITHDRAWN, "")]


def test_an_answer_to_an_earlier_check_in_is_no_leave() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    device.now += 600
    device.hear(TimerFired(draw=0.5))  # a check-in without the start
    stage_while_asking = device.state.soft.sent
    assert stage_while_asking is not None
    stage_release_while_sending(device, "2")
    answer(device, offer("2"))
    assert device.stage is Stage.ANNOUNCING
    answer(device, offer("2"))
    assert device.stage is Stage.ACTIVATING


def stage_release_while_sending(device: Device, release: str) -> None:
    """As ``stage_release``, with a check-in in flight."""
    work = device.soft.work
    assert work is not None
    device.hear(
        ManifestOpened(
            model="digits", job=work, sha256=manifest_sha256(release), manifest=manifest(release)
        )
    )
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Proved(model="digits", job=device.job(Prove), result=ProveResult(passed=True)))


def test_a_restart_goes_on_asking_and_costs_no_attempt() -> None:
    device = staged()
    device.boot(serving=serving("1"))
    assert device.stage is Stage.ANNOUNCING
    check_in(device, offer("2"))
    assert (device.stage, device.mine.attempt.tries) == (Stage.ACTIVATING, 1)  # type: ignore[union-attr] - in trial


def test_what_was_staged_and_lost_bytes_is_fetched_again_and_asks_for_nothing() -> None:
    device = staged()
    device.boot(whole=("a",), serving=serving("1"))
    assert device.stage is Stage.FETCHING
    assert spooled(device) == []


def open_manifest(device: Device, release: str, *, free_bytes: int | None = None) -> None:
    opened = ManifestOpened(
        model="digits",
        job=device.job(FetchManifest),
        sha256=manifest_sha256(release),
        manifest=manifest(release),
        free_bytes=free_bytes,
    )
    device.hear(opened)


def test_a_full_disk_defers_once_and_goes_on_when_there_is_room() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    open_manifest(device, "2", free_bytes=100)
    assert device.kinds() == ("SendCheckIn",), "the device has too little room to begin"
    assert (device.stage, spooled(device)) == (Stage.QUEUED, [(OutcomeKind.DEFERRED, "disk_full")])
    answer(device, offer("2"))
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    open_manifest(device, "2", free_bytes=1 << 30)
    full = StagingFailed(
        model="digits", job=device.job(Fetch), code="disk_full", detail="", draw=0.5
    )
    device.hear(full)  # another program has filled the disk
    assert (device.stage, spooled(device)) == (Stage.QUEUED, []), "once per attempt"
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    open_manifest(device, "2", free_bytes=1 << 30)
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    assert device.stage is Stage.PROVING


def test_a_hub_with_too_many_downloads_is_asked_again_soon_without_a_report() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    open_manifest(device, "2", free_bytes=1 << 30)
    first = device.job(Fetch)
    device.hear(StagingFailed(model="digits", job=first, code="overloaded", detail="", draw=0.5))
    assert (device.stage, spooled(device)) == (Stage.FETCHING, [])
    device.now += 1
    device.hear(TimerFired(draw=0.5))
    assert device.job(Fetch) != first


def load_failed(device: Device) -> ActivationFailed:
    """The release of digits was not loaded."""
    job = device.job(Apply)
    return ActivationFailed(job=job, model="digits", reason="load_failed", detail="no", draw=0.5)


def test_activation_that_fails_goes_back() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    stage_release(device, "2")
    check_in(device, offer("2"))
    device.hear(load_failed(device))
    assert spooled(device) == [(OutcomeKind.TRIAL_FAILED, "load_failed")]
    assert device.served() == ("a", None)


def test_the_pointer_moves_at_the_confirmation() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    stage_release(device, "2")
    assert not any(isinstance(one, MovePointer) for one in device.effects)
    check_in(device, offer("2"))
    assert not any(isinstance(one, MovePointer) for one in device.effects)
    device.hear(Activated(job=device.job(Apply), status=serving("2", on_trial=True)))
    assert not any(isinstance(one, MovePointer) for one in device.effects)
    device.now += 10
    look(device, serving("2", on_trial=True))
    assert device.did(MovePointer) == MovePointer(slots={"digits": "b"})


def test_serving_that_hangs_outside_a_trial_is_put_right() -> None:
    device = installed("1")
    for _ in range(3):
        assert device.state.soft.switch_at is None
        look(device, None)
    device.now += 10
    device.hear(TimerFired(draw=0.5))
    assert device.served() == ("a", None)


def test_serving_that_dies_again_and_again_is_restarted_ever_later() -> None:
    device = installed("1")
    pauses: list[float] = []
    for pid in range(101, 111):
        look(device, None, alive=False)
        at = device.state.soft.switch_at
        assert at is not None
        pauses.append(at - device.now)
        device.now = at
        device.hear(TimerFired(draw=0.5))
        device.hear(Activated(job=device.job(Apply), status=serving("1", pid=pid)))
    assert pauses == sorted(pauses)
    assert (pauses[0] < 0.5, pauses[-1] > 30) == (True, True)
    look(device, serving("1", pid=110))
    look(device, None, alive=False)
    assert device.state.soft.switch_at is not None
    assert device.state.soft.switch_at - device.now < 0.5, "a valid answer resets the pause"


def test_a_release_that_serving_has_by_itself_is_swapped_back() -> None:
    device = installed("1")
    look(device, serving("another"))
    device.now += 10
    device.hear(TimerFired(draw=0.5))
    assert device.served() == ("a", None)


def test_a_first_release_that_fails_its_trial_leaves_nothing_serving() -> None:
    device = Device()
    device.boot(whole=())
    to_watching(device, "3")
    look(device, trial_crashed(""))
    assert "StopServing" in device.kinds()
    look(device, None, alive=False)
    assert device.kinds()[:1] == ("RemoveSlot",)
    assert (device.stage, device.mine.active) == (Stage.IDLE, None)


def test_a_release_that_cannot_be_gone_back_to_is_refused_and_offered_again_later() -> None:
    device = installed("1")
    to_watching(device, "3")
    device.now += 10
    look(device, serving("3"))
    answer(device)
    back = offer("1", rollout="ro-3", action="revert")
    check_in(device, back)
    device.hear(load_failed(device))
    device.hear(Activated(job=device.job(Apply), status=serving("3")))
    assert device.stage is Stage.IDLE
    assert spooled(device) == [(OutcomeKind.REFUSED, "load_failed")]
    answer(device, back)
    assert device.stage is Stage.IDLE, "not in a loop"
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    answer(device, back)
    assert device.stage is Stage.ACTIVATING


def test_an_offer_that_is_not_that_of_its_manifest_is_dropped_and_offered_again() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256("3"),
            manifest=manifest("3"),
        )
    )
    assert spooled(device) == [(OutcomeKind.DEFERRED, "transfer_damaged")]
    assert (device.holds("a"), device.stage) == ("1", Stage.IDLE)
    device.now += device.state.interval_s
    check_in(device, offer("2"))
    assert device.stage is Stage.MANIFEST


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"runtimes": ()}, "runtime_missing"),
        ({"profile": "coral_tpu"}, "no_variant"),
    ],
)
def test_a_release_that_this_device_cannot_run_is_refused_before_it_is_fetched(
    facts: dict[str, object], reason: str
) -> None:
    device = installed("1")
    device.boot(serving=serving("1"), facts=msgspec.structs.replace(FACTS, **facts))
    check_in(device, offer("2"))
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256("2"),
            manifest=manifest("2"),
        )
    )
    assert spooled(device) == [(OutcomeKind.REFUSED, reason)]
    assert device.mine.active == "a"


def test_a_model_larger_than_the_memory_is_refused() -> None:
    device = installed("1")
    check_in(device, offer("2"))
    huge = manifest("2")
    variant = msgspec.structs.replace(
        huge.variants[0], artifact=Artifact(sha256="0" * 64, size_bytes=2 << 30)
    )
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256("2"),
            manifest=msgspec.structs.replace(huge, variants=(variant,)),
        )
    )
    assert spooled(device) == [(OutcomeKind.REFUSED, "does_not_fit")]


def test_a_trial_that_never_stands_healthy_ends() -> None:
    device = installed("1")
    to_watching(device, "3")
    for _ in range(40):
        device.now += 2
        look(device, None)
        device.now += 2
        look(device, serving("3"))
        if device.stage is not Stage.WATCHING:
            break
    assert spooled(device)[-1] == (OutcomeKind.TRIAL_FAILED, "serving_crashed")
