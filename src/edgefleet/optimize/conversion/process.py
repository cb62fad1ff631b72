"""Converts in a child process, see ``child``: a runtime that crashes ends only the child."""

import sys
from pathlib import Path

from edgefleet.optimize.array_files import read_arrays
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.conversion.convert import convert
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.protocol.wire import Wire


class ConvertRequest(Wire, frozen=True, kw_only=True):
    """Make the TFLite file ``made`` from the ONNX file ``model``. ``calibration`` is a folder."""

    model: str
    calibration: str
    made: str


class ConvertAnswer(Wire, frozen=True, kw_only=True):
    """The file is made."""


def apply(request: ConvertRequest) -> ConvertAnswer:
    """Convert. Raises the errors of ``convert``."""
    calibration = CalibrationData(read_arrays(Path(request.calibration)))
    convert(Path(request.model), Path(request.made), calibration)
    return ConvertAnswer()


if __name__ == "__main__":
    sys.exit(serve_child(ConvertRequest, apply))
