"""The canary against the control."""

from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.cohorts import Figures
from edgefleet.rollout.limits import LATENCY_DEVICES_PER_COHORT, SCORES_PER_DEVICE
from support.toy_rollout import ToyShell, spec


def telemetry(requests: int, confidence: float, p95: int) -> Telemetry:
    return Telemetry(
        release="1", requests=requests, errors=1, confidence_sum=confidence * requests,
        confidence_count=requests, latency_us_p50=1, latency_us_p95=p95, memory_mib=1,
    )  # fmt: skip


def test_figures_add_up_and_the_latency_is_the_median_over_devices():
    figures = Figures()
    for row, p95 in ((3, 900), (3, 100), (7, 300), (9000, 500)):
        figures.add(row, telemetry(10, 0.8, p95))
    cohort = figures.cohort()
    assert (cohort.devices, cohort.requests, cohort.errors) == (3, 40, 4)
    assert cohort.confidence_mean is not None
    assert abs(cohort.confidence_mean - 0.8) < 1e-9
    assert cohort.latency_us_p95 == 300


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


def story() -> tuple[ToyShell, str]:
    shell = ToyShell(200)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    rollout = shell.start(spec("2", 10, 100))
    while not shell.view(rollout).evidence.healthy:
        shell.tick()
    return shell, rollout


def report(shell: ToyShell, confidence: float) -> None:
    for device in shell.devices:
        release = device.running
        assert release is not None
        shell.telemetry(device.row, release, confidence if release == "2" else 0.9)


def test_a_release_that_is_less_sure_of_itself_is_taken_back():
    shell, rollout = story()
    report(shell, 0.7)
    view = shell.view(rollout)
    assert (view.evidence.canary.devices, view.evidence.control.devices) == (20, 180)
    view = shell.run(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "confidence_drop")
    assert shell.on_release("1") == 200
    assert view.evidence.canary.devices == 20  # kept with the verdict


def test_a_release_that_is_as_sure_goes_on():
    shell, rollout = story()
    report(shell, 0.85)
    assert shell.run(rollout).status is Status.COMPLETED


def test_devices_outside_the_rollout_are_no_control():
    shell = ToyShell(90)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    rollout = shell.start(spec("2", 50, 100, selector="site=s1"))
    report(shell, 0.9)
    assert shell.view(rollout).evidence.control.devices == 30


def test_a_device_that_never_took_the_release_is_no_canary():
    shell, rollout = story()
    took = {device.row for device in shell.devices if device.running == "2"}
    liar = next(device for device in shell.devices if device.row not in took)
    report(shell, 0.9)
    for _ in range(100):
        shell.telemetry(liar.row, "2", 0.0)
    view = shell.run(rollout)
    assert view.status is Status.COMPLETED
