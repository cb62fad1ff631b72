"""Reads calibration and evaluation data of publishers: ``.npz`` files, as for ``model init``."""

from pathlib import Path

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.data_checks import Purpose, check_inputs, data_error
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.limits import CALIBRATION_CASES, DATA_BYTES, EVALUATION_CASES
from edgefleet.optimize.samples import Samples, read_samples
from edgefleet.serving.model_file import ModelFacts


def read_calibration(path: Path, facts: ModelFacts) -> CalibrationData:
    """The inputs; right answers in the file are not read. At most 2,000, evenly chosen.

    Raises PublisherError ``calibration_invalid`` with the input and the fix.
    """
    read = _read(path, facts, CALIBRATION_CASES, "calibration")
    check_inputs(read.inputs, facts.inputs, "calibration")
    return CalibrationData(read.inputs)


def read_evaluation(path: Path, facts: ModelFacts) -> Samples:
    """The inputs with the right answers.

    Raises PublisherError ``evaluation_invalid`` with the array and the fix.
    """
    read = _read(path, facts, EVALUATION_CASES, "evaluation")
    check_inputs(read.inputs, facts.inputs, "evaluation")
    if read.truth is None and not read.truths:
        raise data_error(
            "evaluation",
            "y",
            "There are no right answers: nothing else proves that accuracy is kept.",
            "Save them beside the inputs: numpy.savez(file, X=inputs, y=right_answers).",
        )
    return read


def _read(path: Path, facts: ModelFacts, cases: int, purpose: Purpose) -> Samples:
    try:
        return read_samples(path, facts, cases, most_bytes=DATA_BYTES)
    except PublisherError as error:
        hint = "Save the data with numpy.savez(file, X=inputs, y=right_answers), cases first."
        message = error.message.replace("The golden set", f"The {purpose} data")
        raise data_error(purpose, error.field or path.name, message, hint) from error
    except OSError as error:
        raise data_error(
            purpose, path.name, f"It cannot be read: {error.strerror}.", "Name a readable file."
        ) from error
