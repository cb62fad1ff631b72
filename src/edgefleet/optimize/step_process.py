"""Applies one step of a recipe: a child process, see ``child``."""

import sys
from pathlib import Path

from edgefleet.optimize.array_files import read_arrays
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import Step
from edgefleet.optimize.techniques import technique_for
from edgefleet.protocol.release import Runtime
from edgefleet.protocol.wire import Wire


class StepRequest(Wire, frozen=True, kw_only=True):
    """Make the file ``made`` from the file ``model``. ``calibration`` is a folder of arrays."""

    runtime: Runtime
    step: Step
    model: str
    calibration: str
    made: str


class StepAnswer(Wire, frozen=True, kw_only=True):
    """The step is done."""


def apply(request: StepRequest) -> StepAnswer:
    """Apply the step. Raises the errors of ``Technique.apply``."""
    calibration = CalibrationData(read_arrays(Path(request.calibration)))
    technique = technique_for(request.runtime, request.step)
    technique.apply(request.step, Path(request.model), calibration, Path(request.made))
    return StepAnswer()


if __name__ == "__main__":
    sys.exit(serve_child(StepRequest, apply))
