"""The figures of a device that a person looks at: from its check-ins, in memory and bounded."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.hub.limits import FIGURES_KEPT
from edgefleet.hub.watched_devices import WatchedDevices
from edgefleet.protocol.bins import bucket, upper_edge_us
from edgefleet.protocol.device import Sketches, Telemetry
from support.hub_inside import enrol_inside, hub_inside, report

TOLD = Telemetry(
    release="2", requests=8, errors=1, refused=2, confidence_sum=6.0, confidence_count=8,
    latency_us_p50=50, latency_us_p95=60, memory_mib=7, cpu_s=0.004, model="digits",
    sketches=Sketches(latency={bucket(100): 7, bucket(5_000): 1}),
)  # fmt: skip


def test_a_report_is_kept_with_the_time_since_the_one_before_it() -> None:
    watched = WatchedDevices()
    watched.add(3, TOLD, 5.0)  # not asked for yet
    assert watched.figures(3, "cam", 10.0).models == ()
    watched.add(3, TOLD, 20.0)
    watched.add(3, replace(TOLD, release="3", sketches=None, requests=0, confidence_count=0), 25.0)
    watched.add(3, replace(TOLD, model="other"), 26.0)
    found = watched.figures(3, "cam", 30.0)
    assert (found.device, found.since) == ("cam", 10.0)
    assert [one.model for one in found.models] == ["digits", "other"]
    first, second = found.models[0].points
    assert (first.at, first.span_s, first.requests, first.errors, first.refused) == (
        20.0,
        None,
        8,
        1,
        2,
    )
    assert first.latency_us_p50 == upper_edge_us(bucket(100))
    assert first.latency_us_p95 == upper_edge_us(bucket(5_000))
    assert (first.confidence, first.cpu_us, first.memory_mib) == (0.75, 500.0, 7)
    assert (second.span_s, second.release) == (5.0, "3")
    assert (second.latency_us_p50, second.confidence, second.cpu_us) == (None, None, None)
    assert found.models[1].points[0].span_s is None  # of its own reports


def test_an_agent_without_histograms_has_the_quantiles_that_it_sends() -> None:
    watched = WatchedDevices()
    watched.figures(0, "cam", 0.0)
    watched.add(0, replace(TOLD, sketches=None, model=None), 1.0)
    (one,) = watched.figures(0, "cam", 2.0).models
    assert one.model == ""
    assert (one.points[0].latency_us_p50, one.points[0].latency_us_p95) == (50, 60)


def test_devices_models_and_reports_are_bounded() -> None:
    watched = WatchedDevices(most=2)
    for row in (0, 1, 0, 2):  # device 1 is the one that was asked for longest ago
        watched.figures(row, "cam", float(row))
    for row in (0, 1, 2):
        watched.add(row, TOLD, 5.0)
    assert len(watched.figures(0, "cam", 6.0).models) == 1
    assert watched.figures(1, "cam", 7.0).models == ()
    for number in range(MODELS_PER_DEVICE + 5):
        for at in range(FIGURES_KEPT + 5):
            watched.add(0, replace(TOLD, model=f"m{number}"), float(at))
    found = watched.figures(0, "cam", 8.0).models
    assert len(found) == MODELS_PER_DEVICE
    assert len(found[-1].points) == FIGURES_KEPT
    assert found[-1].points[-1].at == FIGURES_KEPT + 4


def test_a_check_in_of_a_watched_device_is_shown_by_the_hub(tmp_path: Path) -> None:

    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            first, other = await enrol_inside(hub, 2)
            assert hub.device_figures(first.name).models == ()
            for device in (first, other):
                await report(hub, device, replace(device.said(), telemetry=TOLD))
            (one,) = hub.device_figures(first.name).models
            assert (one.model, one.points[0].requests) == ("digits", 8)
            assert hub.device_figures(other.name).models == ()
            with pytest.raises(OperatorError, match="no device"):
                hub.device_figures("nobody")

    asyncio.run(main())
