"""Latency and memory in the field: what is counted, what is kept, and what a plan says of it."""

import asyncio
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub.field_figures import FieldFigures, FieldRecord
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import FIELD_DEVICE_BITS, FIELD_KEEP_S, FIELD_RECORDS
from edgefleet.optimize.recipe import Half, Recipe, StaticInt8
from edgefleet.protocol.bins import bucket, upper_edge_us
from edgefleet.protocol.device import Sketches, Telemetry
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.wire import encode
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    enrol_inside,
    hub_inside,
    publish_inside,
    report,
)
from support.lineages import measured_on_bench
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()
FP16 = Recipe(runtime="onnx", steps=(Half(),))
INT8 = Recipe(runtime="onnx", steps=(StaticInt8(),))
PROFILE = "generic_x86"


def told(release: str, us: int, requests: int = 100, memory_mib: int = 7) -> Telemetry:
    return Telemetry(
        release=release, requests=requests, errors=0, confidence_sum=0.0, confidence_count=0,
        latency_us_p50=us, latency_us_p95=us, memory_mib=memory_mib, cpu_s=requests * us / 2e6,
        model="digits", sketches=Sketches(latency={bucket(us): requests}),
    )  # fmt: skip


async def publish_made(
    hub: Hub, folder: Path, release: str, recipe: Recipe | None, p50_ms: float = 1.0
) -> None:
    """Publish a release of ``digits``, with a lineage if it has a recipe."""
    made = tiny_release(folder, release)
    if recipe is not None:
        artifact = made.manifest.variants[0].artifact.sha256
        document = encode(
            measured_on_bench(artifact, PROFILE, recipe, release=release, p50_ms=p50_ms)
        )
        named = Artifact(sha256=sha256(document).hexdigest(), size_bytes=len(document))

        async def whole():
            yield document

        await hub.blobs.put(named.sha256, whole())
        made = made.but(lineage=named)
    await publish_inside(hub, KEY, made)


async def serve(hub: Hub, devices: list[InsideDevice], release: str, us: int, times: int) -> None:
    for _ in range(times):
        for device in devices:
            await report(hub, device, replace(device.said(), telemetry=told(release, us)))


def test_a_plan_says_that_another_recipe_was_faster_in_the_field(tmp_path: Path) -> None:
    """fp16 wins on the bench, static_int8 in the field; release 3 is fp16 again."""

    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await publish_made(hub, tmp_path / "r", "1", FP16, 1.0)
            await publish_made(hub, tmp_path / "r", "2", INT8, 1.25)
            await publish_made(hub, tmp_path / "r", "3", FP16, 1.0)
            devices = await enrol_inside(hub, 3)
            await serve(hub, devices, "1", 4_000, 1)
            await serve(hub, devices, "2", 2_000, 1)
            (found,) = hub.model_field("digits").profiles
            assert [one.release for one in found.variants] == ["2", "1"]
            newest = found.variants[0]
            assert (newest.name, newest.requests, newest.devices, newest.cpu_us) == (
                "onnx static_int8", 300, 3, 1_000.0,
            )  # fmt: skip
            assert newest.latency_us_p50 == newest.latency_us_p10 == upper_edge_us(bucket(2_000))
            assert newest.bench is not None
            assert (newest.bench.latency_us_p50, newest.bench.source_bytes) == (1_250.0, 48_000)
            sentence = (
                "On generic_x86, onnx static_int8 (release 2) was 2.00 times as fast in the field "
                "as onnx fp16 (release 1): p50 2.05 ms of 300 requests on at least 3 devices, "
                "4.1 ms of 300 requests on at least 3 devices. On the bench it was 0.80 times as "
                "fast."
            )
            assert found.findings == (sentence,)
            planned = hub.plan_fleet(RolloutSpec(model="digits", release="3"))
            assert planned.warnings == (f"Release 3 has the recipe of release 1. {sentence}",)
            assert hub.plan_fleet(RolloutSpec(model="digits", release="2")).warnings == ()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("recipe", "times", "finding"),
    [
        (INT8, 0, ()),
        # It is not known whether the model before was the same.
        (None, 3, ("onnx fp32 (release 2) is not compared: it has no lineage.",)),
        (FP16, 3, ()),  # the same recipe: no choice
    ],
)
def test_what_does_not_compare_is_not_compared(
    recipe: Recipe | None, times: int, finding: tuple[str, ...], tmp_path: Path
) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await publish_made(hub, tmp_path / "r", "1", FP16)
            await publish_made(hub, tmp_path / "r", "2", recipe)
            devices = await enrol_inside(hub, 1)
            await serve(hub, devices, "1", 4_000, 3)
            await serve(hub, devices, "2", 2_000, times)
            (found,) = hub.model_field("digits").profiles
            assert found.findings == finding
            assert hub.plan_fleet(RolloutSpec(model="digits", release="1")).warnings == ()

    asyncio.run(main())


def test_too_few_requests_are_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await publish_made(hub, tmp_path / "r", "1", FP16)
            (device,) = await enrol_inside(hub, 1)
            await serve(hub, [device], "1", 4_000, 1)
            (found,) = hub.model_field("digits").profiles
            assert found.findings == (
                "onnx fp16 (release 1): too few requests, 100 of 200.",
            )  # fmt: skip
            with pytest.raises(OperatorError, match="no model other"):
                hub.model_field("other")

    asyncio.run(main())


def test_the_next_hub_has_the_figures(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            await publish_made(hub, tmp_path / "r", "1", FP16)
            devices = await enrol_inside(hub, 2)
            await serve(hub, devices, "1", 4_000, 2)
            await serve(hub, devices, "invented", 4_000, 1)
            before = hub.model_field("digits")
            assert len(before.profiles[0].variants) == 1
        clock.time += 100
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert hub.model_field("digits") == before

    asyncio.run(main())


class Known:
    """A fleet of one profile, in which device 9 is copied."""

    def __init__(self) -> None:
        self.copies = self

    def is_copied(self, row: int) -> bool:
        return row == 9

    def profile(self, _row: int) -> str:
        return PROFILE


def figures(written: list[bytes]) -> FieldFigures:
    fleet: Fleet = Known()  # type: ignore[assignment] # the two things that are asked of it
    return FieldFigures(fleet, lambda _model, _release: True, written.append, now=0.0)


def said(telemetry: Telemetry):
    return replace(InsideDevice("d", "t").said(), telemetry=telemetry)


def test_the_size_is_constant_and_the_oldest_record_goes_first() -> None:
    written: list[bytes] = []
    found = figures(written)
    for number in range(FIELD_RECORDS + 1):
        found.add(0, said(told(f"r{number}", 5)))
    assert len(list(found.of("digits"))) == FIELD_RECORDS
    assert next(iter(found.of("digits")))[0] == "r1"
    record = FieldRecord()
    for row in range(3 * FIELD_DEVICE_BITS):
        record.add(row, told("1", 1 << row % 40))
    assert record.variant("1", "a", None).devices == FIELD_DEVICE_BITS
    assert len(encode(record)) < 4_000


def test_a_busy_device_does_not_decide_alone() -> None:
    record = FieldRecord()
    record.add(0, told("1", 50_000, requests=1_000_000))
    for row in (1, 2):
        record.add(row, told("1", 2_000, requests=100))
    assert record.latency_us(0.5) == upper_edge_us(bucket(2_000))
    assert record.requests == 1_000_200


def test_a_copied_device_and_a_report_without_requests_do_not_count() -> None:
    found = figures([])
    found.add(9, said(told("1", 5)))
    found.add(1, said(told("1", 5, requests=0)))
    found.add(1, said(replace(told("1", 5), model=None)))
    assert list(found.of("digits")) == []


def test_it_is_written_once_a_minute_and_damaged_data_are_ignored() -> None:
    written: list[bytes] = []
    found = figures(written)
    found.keep(FIELD_KEEP_S)  # nothing changed
    found.add(0, said(told("1", 5)))
    found.keep(FIELD_KEEP_S - 1)
    assert written == []
    found.keep(FIELD_KEEP_S)
    found.keep(FIELD_KEEP_S + 1, at_once=True)  # nothing changed since
    assert len(written) == 1
    for data in (b"", b"{}", b"no", written[0].replace(b'"devices":"1"', b'"devices":"x"')):
        other = figures([])
        other.load(data)
        assert list(other.of("digits")) == []
    other.load(written[0])
    assert msgspec.to_builtins(next(other.of("digits"))[2]) == msgspec.to_builtins(
        next(found.of("digits"))[2]
    )
