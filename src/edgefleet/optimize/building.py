"""Builds the candidates of recipes, step by step, each in a child process, through the cache."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.base.ids import file_sha256
from edgefleet.optimize.array_files import arrays_digest
from edgefleet.optimize.cache import Cache, key_of
from edgefleet.optimize.child import ChildLimits, run_child
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import Distil, Prune, Recipe, StaticInt8, Step
from edgefleet.optimize.source_model import SourceModel, Trainer
from edgefleet.optimize.step_process import StepAnswer, StepRequest
from edgefleet.optimize.techniques import technique_for
from edgefleet.serving.causes import cause
from edgefleet.serving.limits import DETAIL_CHARS
from edgefleet.serving.model_file import ModelFacts, inspect_model

_MODULE: Final = "edgefleet.optimize.step_process"
_FILE: Final = "model"


@dataclass(frozen=True, slots=True)
class Built:
    """The file of a candidate."""

    recipe: Recipe
    path: Path
    sha256: str
    size_bytes: int
    facts: ModelFacts


class Builder:
    """Builds candidates. Every step is an entry of the cache: recipes share their first steps."""

    def __init__(
        self,
        cache: Cache,
        sources: Mapping[str, SourceModel],
        calibration: CalibrationData,
        calibration_folder: Path,
        trainer: Trainer | None = None,
    ) -> None:
        """``sources`` by runtime. ``calibration_folder`` has the calibration data as files."""
        self._cache = cache
        self._sources = sources
        self._calibration_digest = arrays_digest(calibration.inputs)
        self._calibration_folder = calibration_folder
        self._trainer = trainer

    def key(self, recipe: Recipe) -> str:
        """The key of the cache: weights, calibration data, steps and versions of the tools.

        The profile is no part of it: a recipe has all that changes the bytes.
        """
        source = self._sources[recipe.runtime]
        return key_of(
            "artifact",
            weights=source.sha256,
            runtime=recipe.runtime,
            steps=[to_builtins(step) for step in recipe.steps],
            data=self._calibration_digest if _needs_data(recipe) else None,
            tools=[self._tools(recipe.runtime, step) for step in recipe.steps],
        )

    def build(self, recipe: Recipe, limits: ChildLimits) -> Built:
        """The candidate. Raises PublisherError ``step_failed``, ``calibration_invalid``."""
        if not recipe.steps:
            source = self._sources[recipe.runtime]
            return _built(recipe, source.path, source.facts)
        *before, step = recipe.steps
        first = Recipe(runtime=recipe.runtime, steps=tuple(before))

        def fill(folder: Path) -> None:
            model = self.build(first, limits).path
            self._apply(recipe.runtime, step, model, folder / _file(recipe.runtime), limits)

        path = self._cache.entry(self.key(recipe), fill) / _file(recipe.runtime)
        return _built(recipe, path, inspect_model(path))

    def _apply(
        self, runtime: str, step: Step, model: Path, made: Path, limits: ChildLimits
    ) -> None:
        if isinstance(step, Prune | Distil):
            self._train(step, model, made)
            return
        request = StepRequest(
            runtime=runtime,
            step=step,
            model=str(model.absolute()),
            calibration=str(self._calibration_folder.absolute()),
            made=str(made.absolute()),
        )
        run_child(_MODULE, request, StepAnswer, limits, what=f"The step {_tag(step)}")
        if not made.exists():
            raise PublisherError("step_failed", f"The step {_tag(step)} made no file.")

    def _train(self, step: Step, model: Path, made: Path) -> None:
        """Run the publisher's training function, in this process: it cannot be sent to another."""
        if self._trainer is None:
            raise PublisherError(
                "training_missing",
                f"The step {_tag(step)} changes the weights, and there is no training function.",
                field="trainer",
            )
        try:
            self._trainer.train(step, model, made)
        except EdgefleetError:
            raise
        except Exception as error:  # code of the publisher
            raise PublisherError(
                "step_failed", f"The training function failed: {cause(error, DETAIL_CHARS)}"
            ) from error

    def _tools(self, runtime: str, step: Step) -> Mapping[str, Any]:
        if isinstance(step, Prune | Distil):
            kind = type(self._trainer)
            return {
                "trainer": f"{kind.__module__}.{kind.__qualname__}",
                "version": str(getattr(self._trainer, "version", "")),
            }
        return dict(technique_for(runtime, step).versions())


def _built(recipe: Recipe, path: Path, facts: ModelFacts) -> Built:
    return Built(recipe, path, file_sha256(path), path.stat().st_size, facts)


def copy_built(built: Built, path: Path) -> None:
    """Copy the file of a candidate."""
    shutil.copyfile(built.path, path)


def _needs_data(recipe: Recipe) -> bool:
    return any(isinstance(step, StaticInt8) for step in recipe.steps)


def _file(runtime: str) -> str:
    return f"{_FILE}.tflite" if runtime in ("litert", "edgetpu") else f"{_FILE}.onnx"


def _tag(step: Step) -> str:
    return str(step.__struct_config__.tag)
