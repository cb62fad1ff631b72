"""The recipes that are tried for a profile: a table, in the order in which they are tried."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from msgspec.structs import replace

from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.recipe import (
    Distil,
    DynamicInt8,
    FixBatch,
    Half,
    Prune,
    Recipe,
    Simplify,
    StaticInt8,
    Step,
    WeightInt8,
)
from edgefleet.optimize.techniques import measured_runtime

When = Literal["always", "matmul", "trainer"]
"""``matmul``: the model multiplies matrices. ``trainer``: there is a training function."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe for a runtime. A StaticInt8 for ONNX gets the activations of the profile."""

    runtime: str
    steps: tuple[Step, ...]
    when: When = "always"
    why: str = ""


_CLEAN: Final = Simplify()
_STATIC: Final = StaticInt8()
_STUDENT: Final = Distil(student="width:0.25")

TABLE: Final[tuple[Row, ...]] = (
    Row("onnx", (_CLEAN,), why="fewer nodes; nothing is rounded"),
    Row("onnx", (_CLEAN, _STATIC), why="four times smaller, and faster with VNNI or NEON"),
    Row("onnx", (Half(),), why="half the size; faster on GPUs"),
    Row("onnx", (_CLEAN, StaticInt8(calibration="entropy")), why="cuts rare activations"),
    Row("onnx", (_CLEAN, StaticInt8(calibration="percentile")), why="cuts rare activations"),
    Row("onnx", (DynamicInt8(operators=("MatMul",)),), "matmul", "transformers"),
    Row("onnx", (WeightInt8(),), why="four times smaller; computes in float"),
    Row("onnx", (Prune(),), "trainer", "half of the channels"),
    Row("onnx", (Prune(), _CLEAN, _STATIC), "trainer", "half of the channels, as integers"),
    Row("onnx", (_STUDENT,), "trainer", "a quarter of the channels, taught by the model"),
    Row("onnx", (_STUDENT, _CLEAN, _STATIC), "trainer", "the student, as integers"),
    Row("onnx", (DynamicInt8(),), why="no calibration; slow for convolutions"),
    Row("litert", (StaticInt8(activations="int8", integer_io=True),), why="full integer"),
    Row("litert", (StaticInt8(activations="int8"),), why="integers inside"),
    Row("litert", (Half(),), why="half the size; faster on GPUs"),
    Row("litert", (DynamicInt8(),), why="no calibration"),
    Row("litert", (WeightInt8(),), why="four times smaller; computes in float"),
    Row(
        "edgetpu", (FixBatch(), StaticInt8(activations="int8", integer_io=True)), why="all it runs"
    ),
)
"""The order: what most often wins comes early, so that a short budget finds it.

Simplify is first: if the tool fails on the model, the other recipes go without it.
"""


def recipes_for(
    profile: Profile,
    runtime: str,
    operators: frozenset[str],
    *,
    has_trainer: bool,
    students: Sequence[str] = (),
) -> Iterator[Recipe]:
    """The recipes for a profile in a runtime, in order. The first is the unchanged model.

    The others have a precision that the profile computes in. ``students`` are distilled instead of
    those of the table.
    """
    yield Recipe(runtime=runtime)
    is_first = measured_runtime(profile.runtime) == runtime
    own = [row for row in TABLE if is_first and row.runtime == profile.runtime]
    for row in own or [row for row in TABLE if row.runtime == runtime]:
        if row.when == "matmul" and not operators & {"MatMul", "Gemm"}:
            continue
        if row.when == "trainer" and not has_trainer:
            continue
        for steps in _taught(row.steps, students):
            made = tuple(_for(profile, runtime, one) for one in steps)
            if (recipe := Recipe(runtime=runtime, steps=made)).precision in profile.precisions:
                yield recipe


def _taught(steps: tuple[Step, ...], students: Sequence[str]) -> Iterator[tuple[Step, ...]]:
    """The steps for each student. The steps as they are, if there is no distillation or student."""
    first, *others = steps
    if not isinstance(first, Distil) or not students:
        yield steps
        return
    for student in students:
        yield (replace(first, student=student), *others)


def other_activations(profile: Profile, recipe: Recipe) -> Recipe:
    """The recipe with the activations that are not the profile's, to show what they cost."""
    wanted: Literal["uint8", "int8"] = "int8" if profile.activations == "uint8" else "uint8"
    return with_static(recipe, activations=wanted)


def with_static(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with fields of its StaticInt8 changed."""
    steps = tuple(
        replace(step, **changes) if isinstance(step, StaticInt8) else step for step in recipe.steps
    )
    return Recipe(runtime=recipe.runtime, steps=steps)


def _for(profile: Profile, runtime: str, step: Step) -> Step:
    if isinstance(step, StaticInt8) and runtime == "onnx":
        found: Step = with_static(
            Recipe(runtime=runtime, steps=(step,)),
            activations=profile.activations,
            weight_bits=profile.weight_bits,
        ).steps[0]
        return found
    return step
