"""Quality reports of a device: scores with telemetry, golden accuracy with a confirmation."""

from msgspec.structs import replace

from edgefleet.agent import limits
from edgefleet.agent.effect import Apply, Fetch, FetchManifest, Prove
from edgefleet.agent.event import (
    Activated,
    CheckInAnswered,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    TimerFired,
)
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer, Outcome, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult
from edgefleet.protocol.wire import encode
from support.agent_world import Device, manifest, offer, serving

GOLDEN = manifest("1").golden


def check_in(device: Device, what: Offer | None = None) -> CheckIn:
    """Send the next check-in and answer it. Returns the check-in."""
    if device.state.soft.sent is None:
        device.now = max(device.now, device.state.soft.checkin_at)
        device.hear(TimerFired(draw=0.5))
    said, sent = device.checked_in(), device.state.soft.sent
    assert sent is not None
    answer = CheckInAnswer(interval_s=60.0, offers=(what,) if what else (), acked=sent.outcomes)
    device.hear(CheckInAnswered(seq=sent.seq, answer=answer, draw=0.5))
    return said


def install(device: Device, release: ReleaseManifest, accuracy: float) -> Outcome:
    """From the offer to the confirmation. Returns the check-in with it, unanswered."""
    digest, name = sha256_hex(encode(release)), release.release
    what = replace(offer(name), manifest_sha256=digest)
    check_in(device, what)
    device.hear(
        ManifestOpened(
            model="digits", job=device.job(FetchManifest), sha256=digest, manifest=release
        )
    )
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    result = ProveResult(passed=True, accuracy=accuracy)
    device.hear(Proved(model="digits", job=device.job(Prove), result=result))
    check_in(device, what)
    device.hear(Activated(job=device.job(Apply), status=serving(name)))
    device.now += what.confirm_after_s
    device.hear(ServingProbed(status=serving(name), alive=True, draw=0.5))
    (said,) = device.checked_in().outcomes
    assert said.kind is OutcomeKind.CONFIRMED
    return said


def booted() -> Device:
    device = Device()
    device.boot(whole=())
    return device


def test_a_confirmation_says_how_accurate_it_and_the_one_before_are_on_the_same_set() -> None:
    device = booted()
    first = install(device, replace(manifest("1"), golden=GOLDEN), 0.95)
    assert (first.accuracy, first.accuracy_before) == (0.95, None)
    second = install(device, replace(manifest("2"), golden=GOLDEN), 0.92)
    assert (second.accuracy, second.accuracy_before) == (0.92, 0.95)


def test_accuracies_on_two_golden_sets_are_not_compared() -> None:
    device = booted()
    install(device, manifest("1"), 0.95)
    assert install(device, manifest("2"), 0.92).accuracy_before is None


def test_scores_go_with_the_telemetry_of_their_release_until_they_are_acknowledged() -> None:
    device = booted()
    install(device, manifest("1"), 0.95)
    check_in(device)
    for turn in (1, 2):
        device.now += 1.0
        status = serving("1", requests=turn * limits.WINDOW_REQUESTS, latency_us_p95=500)
        device.hear(ServingProbed(status=status, alive=True, draw=0.5))
    said = check_in(device)
    assert said.telemetry is not None
    assert said.telemetry.scores is not None
    assert (said.telemetry.scores.from_release, said.telemetry.scores.to_release) == ("1", "1")
    assert device.soft.windows.scores is None
    status = serving("1", requests=2 * limits.WINDOW_REQUESTS + 5)
    device.hear(ServingProbed(status=status, alive=True, draw=0.5))
    again = check_in(device).telemetry
    assert again is not None
    assert (again.requests, again.scores) == (5, None)


def test_scores_of_a_release_that_served_nothing_go_with_empty_telemetry() -> None:
    device = booted()
    install(device, manifest("1"), 0.95)
    check_in(device)
    for turn in (1, 2):
        device.now += 50.0
        status = serving("1", requests=turn * limits.WINDOW_REQUESTS)
        device.hear(ServingProbed(status=status, alive=True, draw=0.5))
    check_in(device)
    device.now += limits.WINDOW_S
    device.hear(ServingProbed(status=status, alive=True, draw=0.5))
    said = check_in(device).telemetry
    assert said is not None
    assert (said.release, said.requests) == ("1", 0)
    assert said.scores is not None
    assert said.scores.request_rate_change == -1.0
    assert check_in(device).telemetry is None
