"""A trial is compared with the last requests to the release before it."""

import math
from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.agent import limits, trial
from edgefleet.agent.quality_window import advance, incumbent
from edgefleet.agent.state import Attempt, Incumbent, Windows
from edgefleet.agent.trial import Sick, Watching
from edgefleet.agent.two_samples import log_evidence
from edgefleet.protocol.device import Reason
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats
from support.agent_world import serving, serving_model

BAR = -math.log(limits.ERROR_ALPHA)
QUALITY = Quality(output="y", scores="probabilities", max_confidence_drop=0.1, min_requests=20)
SOUND = Incumbent(
    release="1", requests=500, errors=0, confidence_sum=450.0, confidence_count=500
)  # with 0 refused


def judged(before: Incumbent | None, **counters: object) -> object:
    """The finding on a release that has these counters after its activation."""
    attempt = Attempt(
        number=1, rollout="ro-1", action="install", model="digits", release="2",
        manifest_sha256="0" * 64, confirm_after_s=60.0, max_attempts=2, slot="b", leaving="1",
        incumbent=before,
    )  # fmt: skip
    watch = trial.begin(attempt, serving("2"), 0.0)
    own = replace(serving_model("2"), stats=LiveStats(**counters))  # type: ignore[arg-type] # counters by name
    status = replace(serving("2"), models=(own,))
    return trial.judge(attempt, QUALITY, watch, status, alive=True, now=1.0)


def test_a_release_that_refuses_what_the_one_before_answered_fails_and_the_cause_is_named() -> None:
    found = judged(
        SOUND,
        refused=400,
        refusals={"unknown_input": 399, "malformed": 1},
        refusal_example="clients send `pixels`, release 2 wants `image`",
    )
    assert found == Sick(
        Reason.REFUSALS,
        "400 of 400 requests were refused before the model ran (unknown_input 399): clients send "
        "`pixels`, release 2 wants `image`; 5% are allowed. Of release 1: 0 of 500.",
    )


@pytest.mark.parametrize("kind", ["shape", "queue_full", "a code of a newer serving process"])
def test_refusals_of_any_kind_count_from_ten_requests_on(kind: str) -> None:
    enough = limits.ERROR_MIN_REQUESTS
    few = judged(SOUND, refused=enough - 1, refusals={kind: enough - 1})
    assert isinstance(few, Watching)
    found = judged(SOUND, refused=enough, refusals={kind: enough})
    assert isinstance(found, Sick)
    assert kind in found.detail


@pytest.mark.parametrize("asked", [50, 500, 5000])
def test_the_same_weights_pass_under_a_client_of_which_ten_percent_are_bad(asked: int) -> None:
    bad = asked // 10
    refusing = replace(SOUND, requests=450, refused=50)
    same = judged(refusing, requests=asked - bad, refused=bad, refusals={"shape": bad})
    assert isinstance(same, Watching)
    failing = replace(SOUND, errors=50)
    assert isinstance(judged(failing, requests=asked, errors=bad), Watching)


@pytest.mark.parametrize("before", [SOUND, None, replace(SOUND, requests=0)])
def test_bad_requests_that_were_not_bad_before_fail_a_release(before: Incumbent | None) -> None:
    found = judged(before, requests=500, errors=100)
    assert isinstance(found, Sick)
    assert found.reason is Reason.ERRORS


def test_without_requests_before_the_limit_of_the_device_stays() -> None:
    found = judged(None, requests=4500, refused=500, refusals={"shape": 500})
    assert isinstance(found, Sick)
    assert found.reason is Reason.REFUSALS


def test_worse_than_a_bad_client_is_still_found() -> None:
    refusing = replace(SOUND, requests=450, refused=50)
    found = judged(refusing, requests=60, refused=40, refusals={"shape": 40})
    assert isinstance(found, Sick)
    assert found.reason is Reason.REFUSALS
    assert found.detail.endswith("Of release 1: 50 of 500.")


def sometimes_above(
    rates: tuple[float, float], *, trials: int, size: tuple[int, int], seed: int
) -> int:
    """The trials in which the evidence was ever above the bar. Looked at after every request."""
    draw = Random(seed)
    found = 0
    for _ in range(trials):
        before = sum(draw.random() < rates[0] for _ in range(size[0]))
        bad = 0
        for number in range(1, size[1] + 1):
            bad += draw.random() < rates[1]
            if log_evidence((before, size[0]), (bad, number)) >= BAR:
                found += 1
                break
    return found


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_the_same_rate_is_rarely_found_to_be_worse_however_often_one_looks(rate: float) -> None:
    found = sometimes_above((rate, rate), trials=500, size=(100, 150), seed=7)
    assert found <= 2  # expected: at most 0.5


def test_three_times_the_rate_is_found() -> None:
    found = sometimes_above((0.1, 0.4), trials=100, size=(200, 150), seed=7)
    assert found >= 95


def test_a_bounded_score_gives_no_more_evidence_than_a_coin() -> None:
    """The mean of the e-value stays at 1 or below for scores between 0 and 1."""
    draw = Random(7)
    values = []
    for _ in range(4000):
        before = sum(draw.betavariate(1, 4) for _ in range(30))
        now = sum(draw.betavariate(1, 4) for _ in range(30))
        values.append(math.exp(log_evidence((before, 30), (now, 30))))
    assert sum(values) / len(values) <= 1.0


def test_the_baseline_is_the_last_two_windows_of_the_release() -> None:
    def looked(windows: Windows, release: str, now: float, **more: int) -> Windows:
        grown = LiveStats(confidence_count=0, **more)
        return advance(windows, serving_model(release), grown, now)

    windows = looked(Windows(), "1", 0.0)
    windows = looked(windows, "1", 5.0, requests=100, errors=10, refused=7)
    assert incumbent(windows, "2") == Incumbent(release="2")
    windows = looked(windows, "1", 10.0, requests=30, refused=3)
    assert incumbent(windows, "1") == Incumbent(release="1", requests=130, errors=10, refused=10)
