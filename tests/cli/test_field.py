"""``model field``, and the paired figures of ``model compare``, for people and programs."""

from pathlib import Path
from typing import Any

import pytest

from edgefleet.cli.model.compare import cost_rows
from edgefleet.optimize.comparison.costs import CostComparison, TimesFaster
from edgefleet.optimize.measurement import Latency
from edgefleet.protocol.field_figures import (
    BenchFigures,
    FieldProfile,
    FieldVariant,
    ModelField,
    findings,
)
from support.canned_hub import CannedHub
from support.command_line import CommandLine


def variant(release: str, step: str, us: int, bench_us: float, requests: int = 900) -> FieldVariant:
    recipe: dict[str, Any] = {"runtime": "onnx", "steps": [{"step": step}]}
    bench = BenchFigures(
        recipe=recipe, source_bytes=48_000, latency_us_p50=bench_us, latency_us_p10=bench_us,
        batch=1, memory_bytes=1 << 20,
    )  # fmt: skip
    return FieldVariant(
        release=release, name=f"onnx {step}", requests=requests, devices=12, latency_us_p50=us,
        latency_us_p10=us, cpu_us=us / 2, memory_mib=41, bench=bench,
    )  # fmt: skip


def test_the_figures_of_the_fleet_stand_beside_the_bench(
    fleet: CommandLine, canned: CannedHub
) -> None:
    variants = (variant("2", "static_int8", 8_000, 9_000), variant("1", "fp16", 12_000, 7_000))
    found = FieldProfile(
        profile="raspberry_pi", variants=variants, findings=findings("raspberry_pi", variants)
    )
    answer = ModelField(model="digits", since=1_790_000_000.0, profiles=(found,))
    canned.put("GET", "/api/v1/models/digits/field", answer)
    said = fleet("model", "field", "digits")
    assert said.exit == 0, said.err
    row = next(line for line in said.out.splitlines() if line.split()[:1] == ["2"])
    assert row.split() == [
        "2", "onnx", "static_int8", "900", "at", "least", "12", "8", "ms", "8", "ms", "4", "ms", "41",
        "MiB", "9", "ms",
    ]  # fmt: skip
    assert (
        "On raspberry_pi, onnx static_int8 (release 2) was 1.50 times as fast in the field as onnx "
        "fp16 (release 1)"
    ) in said.out
    assert "On the bench it was 0.78 times as fast." in said.out
    shown = fleet("model", "field", "digits", "--json").json
    assert shown["profiles"][0]["variants"][0]["requests"] == 900
    canned.put(
        "GET", "/api/v1/models/digits/field", ModelField(model="digits", since=0, profiles=())
    )
    assert "No device has reported requests to digits" in fleet("model", "field", "digits").out


@pytest.mark.parametrize(
    ("slow_us", "words"), [(9_000, 0), (12_000, 1)], ids=["within a bucket", "clearly slower"]
)
def test_a_difference_within_a_bucket_is_none(slow_us: int, words: int) -> None:
    variants = (variant("2", "static_int8", 8_000, 1.0), variant("1", "fp16", slow_us, 1.0))
    assert len(findings("p", variants)) == words


def test_the_newest_release_of_a_recipe_with_enough_requests_counts() -> None:
    variants = (
        variant("3", "fp16", 1_000, 1.0, requests=5),
        variant("2", "static_int8", 8_000, 1.0),
        variant("1", "fp16", 12_000, 1.0),
    )
    assert "as onnx fp16 (release 1)" in findings("p", variants)[0]
    assert findings("p", variants[:1]) == ("onnx fp16 (release 3): too few requests, 5 of 200.",)


def test_a_comparison_says_how_sure_it_is(fleet: CommandLine, tmp_path: Path) -> None:
    costs = CostComparison(
        batch=4, threads=1,
        before=Latency(p50_s=0.004, p10_s=0.003, runs=1_200),
        after=Latency(p50_s=0.002, p10_s=0.003, runs=1_200),
        by_p50=TimesFaster(times=2.0, low=1.8, high=2.2),
        by_p10=TimesFaster(times=1.0, low=0.9, high=1.1),
        memory_before_bytes=8 << 20, memory_after_bytes=2 << 20,
    )  # fmt: skip
    assert dict(cost_rows(costs)) == {
        "p50": "4 ms -> 2 ms, 2.00 times the speed (95 % interval 1.80 to 2.20)",
        "p10": "3 ms -> 3 ms, 1.00 times the speed (95 % interval 0.90 to 1.10) is not shown to differ",
        "measured": "1,200 rounds, batch 4, 1 thread",
        "memory": "8.0 MiB -> 2.0 MiB, 4.00 times smaller",
    }
    (tmp_path / "m.onnx").write_bytes(b"")
    said = fleet("model", "compare", str(tmp_path / "m.onnx"), str(tmp_path / "m.onnx"),
                 "--measure", "1s")  # fmt: skip
    assert "Latency is measured on real inputs." in said.err
