"""Reads calibration and evaluation data of publishers.

It is an ``.npz`` file as for ``model init``, a folder of images, arrays by name, or a function that
returns arrays, or an iterable of batches of them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.data_checks import Purpose, check_inputs, data_error
from edgefleet.optimize.evaluation_data import Arrays, CalibrationData
from edgefleet.optimize.image_folder import read_images
from edgefleet.optimize.limits import CALIBRATION_CASES, DATA_BYTES, EVALUATION_CASES
from edgefleet.optimize.preprocessing import Preprocessing
from edgefleet.optimize.samples import Array, Samples, read_samples, samples_of
from edgefleet.serving.causes import cause
from edgefleet.serving.limits import DETAIL_CHARS
from edgefleet.serving.model_file import ModelFacts

Batches = Arrays | Iterable[Arrays]
Data = Path | Arrays | Callable[[], Batches]


@dataclass(frozen=True, slots=True)
class DataReader:
    """Reads data for the inputs of a model. ``work`` gets the arrays of images.

    ``images`` is the preprocessing of folders of images. ``facts`` gets, by purpose, what the
    lineage says of the data.
    """

    model: ModelFacts
    work: Path
    images: Preprocessing | None = None
    facts: dict[str, Mapping[str, object]] = field(default_factory=dict)

    def calibration(self, data: Data) -> CalibrationData:
        """The inputs; right answers in the data are not read. At most 2,000, evenly chosen.

        Raises PublisherError ``calibration_invalid`` with the input and the fix.
        """
        read = self._read(data, CALIBRATION_CASES, "calibration")
        check_inputs(read.inputs, self.model.inputs, "calibration")
        return CalibrationData(read.inputs)

    def evaluation(self, data: Data) -> Samples:
        """The inputs with the right answers.

        Raises PublisherError ``evaluation_invalid`` with the array and the fix.
        """
        read = self._read(data, EVALUATION_CASES, "evaluation")
        check_inputs(read.inputs, self.model.inputs, "evaluation")
        if read.truth is None and not read.truths:
            raise data_error(
                "evaluation",
                "y",
                "There are no right answers: nothing else proves that accuracy is kept.",
                "Save them beside the inputs: numpy.savez(file, X=inputs, y=right_answers).",
            )
        return read

    def _read(self, data: Data, cases: int, purpose: Purpose) -> Samples:
        if isinstance(data, Path) and data.is_dir():
            images = read_images(
                data, self.model, self.images, self.work, purpose=purpose, cases=cases
            )
            self.facts[purpose] = images.facts
            return Samples(inputs=images.inputs, truth=images.labels, truths={}, outputs={})
        name = data.name if isinstance(data, Path) else getattr(data, "__name__", purpose)
        try:
            if isinstance(data, Path):
                return read_samples(data, self.model, cases, most_bytes=DATA_BYTES)
            given = _called(data, purpose) if callable(data) else data
            return samples_of(_arrays(given, purpose), self.model, cases)
        except PublisherError as error:
            if error.code == f"{purpose}_invalid":
                raise
            hint = "Save the data with numpy.savez(file, X=inputs, y=right_answers), cases first."
            message = error.message.replace("The golden set", f"The {purpose} data")
            raise data_error(purpose, error.field or name, message, hint) from error
        except OSError as error:
            raise data_error(
                purpose, name, f"It cannot be read: {error.strerror}.", "Name a readable file."
            ) from error


def _called(function: Callable[[], Batches], purpose: Purpose) -> Batches:
    """The result of the publisher's function; batches of an iterable are joined."""
    name = str(getattr(function, "__name__", type(function).__name__))
    try:
        made = function()
        return made if isinstance(made, Mapping) else _joined(made, purpose, name)
    except PublisherError:
        raise
    except Exception as error:  # code of the publisher
        raise data_error(
            purpose,
            name,
            f"The function raised {cause(error, DETAIL_CHARS)}",
            "Return arrays by name, cases first, or an iterable of such batches.",
        ) from error


def _joined(batches: Iterable[Arrays], purpose: Purpose, name: str) -> Arrays:
    """The last batch may be smaller."""
    parts: dict[str, list[Array]] = {}
    total = 0
    for number, batch in enumerate(batches):
        if number and batch.keys() != parts.keys():
            raise data_error(
                purpose,
                name,
                f"Batch {number} has the arrays {', '.join(sorted(batch))}, and the first "
                f"{', '.join(sorted(parts))}.",
                "Give every batch the same arrays.",
            )
        for key, array in batch.items():
            parts.setdefault(key, []).append(np.asarray(array))
            total += parts[key][-1].nbytes
        if total > DATA_BYTES:
            raise data_error(
                purpose, name, f"It gives more than {DATA_BYTES:,} bytes.", "Give fewer cases."
            )
    if not parts:
        raise data_error(purpose, name, "It gives no batches.", "Give at least one case.")
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def _arrays(given: Batches, purpose: Purpose) -> dict[str, Array]:
    """The arrays, checked: the publisher's code may give anything."""
    if not isinstance(given, Mapping):
        raise data_error(
            purpose,
            purpose,
            f"{type(given).__name__} is neither a path, arrays by name nor a function.",
            "Pass {'X': inputs, 'y': right_answers}.",
        )
    named = cast("Mapping[str, Any]", given)
    made = {str(name): np.asarray(array) for name, array in named.items()}
    for name, array in made.items():
        if array.dtype.kind not in "biufUS" or array.ndim == 0:
            raise data_error(
                purpose,
                name,
                f"The array is {array.dtype} of shape {array.shape}.",
                "Pass numbers or texts, cases first.",
            )
    return made
