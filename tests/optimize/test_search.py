"""The search on one profile, without processes: order, ladder, time, verdicts and choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.building import Built
from edgefleet.optimize.candidates import TABLE, recipes_for
from edgefleet.optimize.child import ChildLimits
from edgefleet.optimize.evidence import profile_report
from edgefleet.optimize.judgement import Refusal
from edgefleet.optimize.measurement import Budget, Latency
from edgefleet.optimize.measuring import RunFacts
from edgefleet.optimize.metrics.score import Score
from edgefleet.optimize.outcome import ProfileOutcome
from edgefleet.optimize.profiles import PROFILES
from edgefleet.optimize.recipe import FixBatch, Half, Prune, Recipe, Simplify, StaticInt8
from edgefleet.optimize.report.decisions import verdict
from edgefleet.optimize.search import Plan, search, with_other_activations
from edgefleet.protocol.field_figures import BenchFigures, FieldVariant
from edgefleet.protocol.release import TensorSpec
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.model_file import ModelFacts
from edgefleet.serving.runtime_versions import FormatVersions

CASES = 1000
SPECS = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
FACTS = ModelFacts(SPECS, SPECS, FormatVersions(9, 17))
X86 = replace(PROFILES["generic_x86"], weight_bits=8)  # the names of recipes stay short
FLOAT = Recipe(runtime="onnx")
HALF = Recipe(runtime="onnx", steps=(Half(),))
STATIC = Recipe(runtime="onnx", steps=(StaticInt8(),))
CLEAN = Recipe(runtime="onnx", steps=(Simplify(),))
CLEAN_STATIC = Recipe(runtime="onnx", steps=(Simplify(), StaticInt8()))


@dataclass
class FakeBench:
    """Candidates whose figures are said: bytes, wrong cases and seconds by recipe."""

    sizes: Mapping[Recipe, int] = field(default_factory=dict)
    wrong: Callable[[Recipe], int] = lambda _: 0
    seconds: Mapping[Recipe, float] = field(default_factory=dict)
    fails: Callable[[Recipe], bool] = lambda _: False
    now: float = 0.0
    built: list[Recipe] = field(default_factory=list)

    def build(self, recipe: Recipe, limits: ChildLimits) -> Built:
        self.built.append(recipe)
        self.now += 1
        if self.fails(recipe):
            raise PublisherError("step_failed", "The tool says no.")
        digest = sha256(repr(recipe).encode()).hexdigest()
        return Built(recipe, Path("model.onnx"), digest, self.sizes.get(recipe, 1_000), FACTS)

    def run(self, built: Built, limits: ChildLimits) -> RunFacts:
        size = built.size_bytes
        return RunFacts(built, {}, built.sha256, 1 << 20, size, None, 8)

    def score(self, facts: RunFacts) -> Score:
        wrong = self.wrong(facts.built.recipe)
        return Score(1 - wrong / CASES, tuple([0.0] * wrong + [1.0] * (CASES - wrong)))

    def latencies(self, candidates: Sequence[Built], seconds: float) -> tuple[Latency, ...]:
        times = [self.seconds.get(one.recipe, 0.01) for one in candidates]
        return tuple(Latency(p50_s=one, p10_s=one, runs=9) for one in times)

    def limits(self, seconds: float) -> ChildLimits:
        return ChildLimits(1 << 30, seconds)


def found(bench: FakeBench, *recipes: Recipe, **other: Any) -> ProfileOutcome:
    budget = other.pop("budget", Budget())
    plan = Plan(
        X86, (FLOAT, *recipes), budget, other.pop("end", 1e9), clock=lambda: bench.now, **other
    )
    return search(plan, bench, other.get("progress", lambda _: None))


def refusals(outcome: ProfileOutcome) -> dict[str, Refusal | None]:
    return {one.recipe.name: one.judgement.refused for one in outcome.tried}


def test_the_greatest_gain_is_chosen() -> None:
    bench = FakeBench(
        sizes={FLOAT: 4_000, HALF: 2_000, STATIC: 1_000},
        seconds={FLOAT: 0.01, HALF: 0.01, STATIC: 0.005},
    )
    outcome = found(bench, HALF, STATIC)
    assert outcome.chosen is not None
    assert outcome.chosen.candidate is not None
    assert outcome.chosen.candidate.recipe == STATIC
    assert (outcome.chosen.smaller, outcome.chosen.faster) == (4.0, 2.0)
    assert outcome.front == (STATIC,)
    assert outcome.text.startswith("generic_x86: onnx static_int8. ")


def test_the_figures_of_the_fleet_can_change_the_choice() -> None:
    bench = FakeBench(
        sizes={FLOAT: 4_000, HALF: 2_000, STATIC: 1_900},
        seconds={FLOAT: 0.01, HALF: 0.004, STATIC: 0.005},
    )
    seen = [
        FieldVariant(
            release=release, name=recipe.name, requests=requests, devices=3, latency_us_p50=p50,
            latency_us_p10=p50, cpu_us=None, memory_mib=9,
            bench=BenchFigures(
                recipe=decode(encode(recipe), dict[str, object]), source_bytes=4_000,
                latency_us_p50=1.0, latency_us_p10=1.0, batch=8, memory_bytes=1,
            ),
        )
        for release, recipe, requests, p50 in (("2", STATIC, 300, 6_000), ("1", HALF, 900, 12_000))
    ]  # fmt: skip
    before, outcome = found(bench, HALF, STATIC), found(bench, HALF, STATIC, field=seen)
    assert before.chosen is not None
    assert outcome.chosen is not None
    assert (before.text.split(". ")[0], before.by_bench) == ("generic_x86: onnx fp16", None)
    assert (outcome.text.split(". ")[0], outcome.by_bench) == (
        "generic_x86: onnx static_int8", HALF,
    )  # fmt: skip
    assert verdict(profile_report(outcome, 0.99)).endswith(
        "The bench alone would choose onnx fp16."
    )


def test_the_front_has_those_that_no_other_beats() -> None:
    bench = FakeBench(
        sizes={FLOAT: 4_000, HALF: 2_000, STATIC: 1_000},
        seconds={HALF: 0.004, STATIC: 0.008},
    )
    assert set(found(bench, HALF, STATIC).front) == {HALF, STATIC}


def test_no_variant_qualifies_is_an_answer_with_reasons() -> None:
    bench = FakeBench(sizes={FLOAT: 4_000, HALF: 4_000, STATIC: 1_000}, seconds={STATIC: 0.02})
    outcome = found(bench, HALF, STATIC)
    assert outcome.chosen is None
    assert refusals(outcome) == {
        "onnx fp16": Refusal.NOT_BETTER,
        "onnx static_int8": Refusal.SLOWER,
    }
    assert outcome.text.startswith("No variant qualifies for generic_x86, because onnx fp16: ")


def test_a_tool_that_fails_refuses_its_candidate_only() -> None:
    bench = FakeBench(sizes={FLOAT: 4_000}, fails=lambda one: one == HALF)
    outcome = found(bench, HALF, STATIC)
    assert refusals(outcome) == {
        "onnx static_int8": None, "onnx fp16": Refusal.NOT_BUILT,
    }  # fmt: skip
    with pytest.raises(PublisherError, match="The tool says no"):
        found(FakeBench(fails=lambda _: True), HALF)


def test_recipes_go_without_simplify_if_the_tool_fails() -> None:
    bench = FakeBench(sizes={FLOAT: 4_000}, fails=lambda one: Simplify() in one.steps)
    outcome = found(bench, CLEAN, CLEAN_STATIC)
    assert refusals(outcome) == {"onnx static_int8": None, "onnx simplify": Refusal.NOT_BUILT}


def ladder_bench(passes: Callable[[StaticInt8], bool]) -> FakeBench:
    def wrong(recipe: Recipe) -> int:
        static = next((one for one in recipe.steps if isinstance(one, StaticInt8)), None)
        return 200 if static is not None and not passes(static) else 0

    return FakeBench(sizes={FLOAT: 4_000}, wrong=wrong)


def worst(model: Path, step: StaticInt8) -> Mapping[str, float]:
    assert model == Path("model.onnx")
    return {"a": 9.0, "b": 10.0, "c": 20.0, "d": 30.0, "e": 40.0}


def test_the_ladder_keeps_as_few_nodes_in_float_as_it_can() -> None:
    bench = ladder_bench(lambda step: len(step.keep_float) >= 2)
    outcome = found(bench, STATIC, worst_first=worst)
    assert refusals(outcome) == {
        "onnx static_int8": Refusal.ACCURACY_LOST,
        "onnx static_int8(1 in float)": Refusal.ACCURACY_LOST,
        "onnx static_int8(2 in float)": None,
    }
    assert bench.built[-1].steps == (StaticInt8(keep_float=("a", "b")),)
    assert list(outcome.sensitivity_db) == ["a", "b", "c", "d", "e"]


def test_the_ladder_ends_with_activations_of_16_bits() -> None:
    bench = ladder_bench(lambda step: step.activations == "int16")
    outcome = found(bench, STATIC, worst_first=worst)
    names = [one.recipe.name.removeprefix("onnx ") for one in outcome.tried]
    assert names == [
        "static_int8", "static_int8(1 in float)", "static_int8(2 in float)",
        "static_int8(4 in float)", "static_int8(int16)",
    ]  # fmt: skip
    assert outcome.tried[-1].judgement.refused is None


def test_there_is_no_ladder_where_a_static_variant_keeps_its_accuracy() -> None:
    good = Recipe(runtime="onnx", steps=(StaticInt8(calibration="entropy"),))
    bench = ladder_bench(lambda step: step.calibration == "entropy")
    found(bench, STATIC, good, worst_first=worst)
    assert bench.built == [FLOAT, STATIC, good]


def test_what_is_not_tried_in_time_is_said() -> None:
    bench = FakeBench(sizes={FLOAT: 4_000})  # each build takes one second
    outcome = found(bench, HALF, STATIC, CLEAN, end=2.0)
    assert bench.built == [FLOAT, HALF]
    assert outcome.skipped == (STATIC, CLEAN)
    assert refusals(outcome) == {"onnx fp16": None}


def test_limits_of_the_budget_refuse() -> None:
    bench = FakeBench(sizes={FLOAT: 4_000, HALF: 2_000})
    small = found(bench, HALF, budget=Budget(size_bytes=1_000, memory_bytes=2 << 20))
    assert refusals(small) == {"onnx fp16": Refusal.OVER_SIZE}
    short = found(bench, HALF, budget=Budget(memory_bytes=1_000))
    assert refusals(short) == {"onnx fp16": Refusal.OVER_MEMORY}


def test_progress_has_a_line_for_each_candidate() -> None:
    lines: list[str] = []
    plan = Plan(X86, (FLOAT, HALF), Budget(), 1e9, clock=lambda: 0.0)
    search(plan, FakeBench(sizes={FLOAT: 4_000, HALF: 2_000}), lines.append)
    assert [line.split(":")[1].strip() for line in lines] == [
        "onnx unchanged", "onnx fp16", "measuring the latency of 2 candidates together",
    ]  # fmt: skip
    assert "2.00 times smaller, metric 1 (unchanged: 1)" in lines[1]


def test_the_table_gives_a_profile_its_recipes() -> None:
    x86 = list(recipes_for(X86, "onnx", frozenset({"Conv"}), has_trainer=False))
    assert x86[0] == FLOAT
    assert CLEAN_STATIC in x86
    assert not any(isinstance(step, Prune) for one in x86 for step in one.steps)
    assert len(set(x86)) == len(x86)
    more = set(recipes_for(X86, "onnx", frozenset({"MatMul"}), has_trainer=True)) - set(x86)
    assert {one.name for one in more} == {
        "onnx dynamic_int8(MatMul)", "onnx prune", "onnx prune+simplify+static_int8",
        "onnx distil(width:0.25)", "onnx distil(width:0.25)+simplify+static_int8",
    }  # fmt: skip
    assert len(TABLE) == len(set(TABLE))
    own = recipes_for(X86, "onnx", frozenset(), has_trainer=True, students=("net:a", "net:b"))
    assert [one.name for one in own if "distil" in one.name] == [
        "onnx distil(net:a)", "onnx distil(net:b)",
        "onnx distil(net:a)+simplify+static_int8", "onnx distil(net:b)+simplify+static_int8",
    ]  # fmt: skip


def test_activations_are_those_of_the_profile() -> None:
    arm = replace(X86, activations="int8")
    signed = Recipe(runtime="onnx", steps=(Simplify(), StaticInt8(activations="int8")))
    recipes = list(recipes_for(arm, "onnx", frozenset(), has_trainer=False))
    assert signed in recipes
    assert CLEAN_STATIC not in recipes
    assert with_other_activations(arm, recipes)[-1] == CLEAN_STATIC


def test_weights_have_the_bits_of_the_profile() -> None:
    for name, bits in (("generic_x86", 7), ("arm64", 8)):
        recipes = recipes_for(PROFILES[name], "onnx", frozenset(), has_trainer=False)
        static = [step for one in recipes for step in one.steps if isinstance(step, StaticInt8)]
        assert static
        assert {step.weight_bits for step in static} == {bits}


def test_a_profile_gets_precisions_that_it_computes_in() -> None:
    jetson = recipes_for(PROFILES["jetson_nano"], "onnx", frozenset({"MatMul"}), has_trainer=False)
    assert [one.name for one in jetson] == ["onnx unchanged", "onnx simplify", "onnx fp16"]


def test_the_edge_tpu_gets_full_integer_models_only() -> None:
    (unchanged, whole) = recipes_for(
        PROFILES["coral_tpu"], "litert", frozenset(), has_trainer=False
    )
    assert unchanged == Recipe(runtime="litert")
    assert whole.steps == (FixBatch(), StaticInt8(activations="int8", integer_io=True))
