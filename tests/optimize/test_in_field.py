"""The figures of the fleet rank candidates again, where they compare."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.in_field import ranked_in_field, read_field
from edgefleet.optimize.judge import judge_all
from edgefleet.optimize.judgement import Judgement, Refusal
from edgefleet.optimize.measurement import Budget, Latency, Measurement
from edgefleet.optimize.pareto import best
from edgefleet.optimize.recipe import Half, Recipe, StaticInt8
from edgefleet.protocol.field_figures import BenchFigures, FieldProfile, FieldVariant, ModelField
from edgefleet.protocol.wire import decode, encode
from support.reports import BASELINE, measured

FP16 = measured(Half(), size=21.4, p50_ms=1.0, wrong=12)
INT8 = measured(StaticInt8(), size=18.0, p50_ms=1.3, wrong=12)
BUDGET = Budget(memory_bytes=512 << 20)


def in_fleet(
    one: Measurement, p50_us: int, *, requests: int = 900, memory_mib: int = 40, size: int = 0
) -> FieldVariant:
    """The recipe of a candidate as release 7, from a model of the baseline's size."""
    made = decode(encode(one.recipe), dict[str, object])
    return FieldVariant(
        release="7", name=one.recipe.name, requests=requests, devices=4, latency_us_p50=p50_us,
        latency_us_p10=p50_us, cpu_us=None, memory_mib=memory_mib,
        bench=BenchFigures(
            recipe=made, source_bytes=size or BASELINE.size_bytes, latency_us_p50=1.0,
            latency_us_p10=1.0, batch=1, memory_bytes=1,
        ),
    )  # fmt: skip


def ranked(*variants: FieldVariant) -> tuple[Judgement, ...]:
    return ranked_in_field(BASELINE, judge_all(BASELINE, [FP16, INT8], BUDGET), variants, BUDGET)


def chosen(*variants: FieldVariant) -> str:
    found = best(ranked(*variants))
    assert found is not None
    assert found.candidate is not None
    return found.candidate.recipe.name


def test_the_bench_decides_where_the_fleet_knows_nothing() -> None:
    assert chosen() == "onnx fp16"
    assert chosen(in_fleet(INT8, 2_000)) == "onnx fp16", "one recipe alone has no ratio"


def test_the_faster_recipe_of_the_fleet_is_chosen() -> None:
    found = ranked(in_fleet(FP16, 9_000, requests=2_000), in_fleet(INT8, 6_000))
    assert (
        chosen(in_fleet(FP16, 9_000, requests=2_000), in_fleet(INT8, 6_000)) == "onnx static_int8"
    )
    anchor, other = found
    assert (anchor.in_field and anchor.in_field.faster) == pytest.approx(5.07)
    assert (other.in_field and other.in_field.faster) == pytest.approx(5.07 * 1.5)
    assert (
        "In the field release 7 took 6 ms (p50 of 900 requests on at least 4 devices)" in other.text
    )
    assert other.faster == pytest.approx(3.9), "the figure of the bench stays beside it"


@pytest.mark.parametrize(
    "variants",
    [
        (in_fleet(FP16, 9_000), in_fleet(INT8, 6_000, requests=199)),
        (in_fleet(FP16, 9_000), in_fleet(INT8, 6_000, size=20 << 20)),
        (in_fleet(FP16, 9_000), replace(in_fleet(INT8, 6_000), bench=None)),
        (in_fleet(FP16, 9_000), in_fleet(INT8, 10_000)),
    ],
    ids=["too few requests", "another model", "no lineage", "within a bucket of the bench"],
)
def test_what_does_not_compare_changes_nothing(variants: tuple[FieldVariant, ...]) -> None:
    assert chosen(*variants) == "onnx fp16"


def test_memory_in_the_field_over_the_limit_refuses() -> None:
    found = ranked(in_fleet(FP16, 9_000, memory_mib=513, requests=3))
    assert found[0].refused is Refusal.OVER_MEMORY
    assert found[0].text == (
        "In the field release 7 took 513 MiB of memory with this recipe; 512.0 MiB are allowed."
    )
    assert chosen(in_fleet(FP16, 9_000, memory_mib=513, requests=3)) == "onnx static_int8"


def test_a_refusal_of_the_bench_stays() -> None:
    slow = replace(INT8, latency=Latency(p50_s=1.0, p10_s=1.0, runs=9))
    judged = judge_all(BASELINE, [FP16, slow], BUDGET)
    found = ranked_in_field(BASELINE, judged, [in_fleet(FP16, 9_000), in_fleet(slow, 100)], BUDGET)
    assert found[1].refused is Refusal.SLOWER
    assert found[1].in_field is None


def test_the_file_is_the_answer_of_model_field(tmp_path: Path) -> None:
    path = tmp_path / "field.json"
    profile = FieldProfile(profile="arm64", variants=(in_fleet(INT8, 5),))
    path.write_bytes(encode(ModelField(model="digits", since=0.0, profiles=(profile,))))
    assert read_field(path, "digits") == {"arm64": (in_fleet(INT8, 5),)}
    assert Recipe(runtime="onnx", steps=(StaticInt8(),)) == INT8.recipe
    with pytest.raises(PublisherError, match="figures of the model digits, not of faces"):
        read_field(path, "faces")
    path.write_text("{}")
    with pytest.raises(PublisherError) as caught:
        read_field(path, "digits")
    assert caught.value.code == "release_file_invalid"
