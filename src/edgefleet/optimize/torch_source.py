"""A PyTorch model as the source of an optimisation: exported to ONNX, with a trainer for it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.data_checks import data_error
from edgefleet.optimize.data_files import Data
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.limits import DATA_BYTES
from edgefleet.optimize.samples import named_inputs
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel
from edgefleet.optimize.torch_steps.job import Done
from edgefleet.optimize.torch_steps.reference import is_reference
from edgefleet.optimize.torch_steps.trainer import TorchModel, TorchTrainer, export_model

SUFFIXES: Final = (".pt", ".pth", ".pt2")
_EXAMPLE_CASES: Final = 4
_HINT: Final = "Save the inputs with numpy.savez(file, X=inputs), cases first."


@dataclass(frozen=True, slots=True)
class TorchWishes:
    """``train`` names a training function, see ``torch_steps``. ``python`` has PyTorch."""

    train: str = ""
    python: Path | None = None
    on_line: Callable[[str], None] | None = None


def is_torch(model: str | Path) -> bool:
    """Whether the model is a function that returns one, or a file of PyTorch."""
    return is_reference(str(model)) or Path(model).suffix in SUFFIXES


def with_torch(
    models: Sequence[str | Path], calibration: Data, wishes: TorchWishes, folder: Path
) -> tuple[list[Path | SourceModel], TorchTrainer | None]:
    """The models with those of PyTorch exported into ``folder``, and the trainer of such a model.

    The trainer is there without a training function too: what needs one is then refused. None: no
    model is of PyTorch. Raises the errors of ``export_model``, ``calibration_invalid``, and
    ``model_unsupported`` for a training function without such a model, or two such models.
    """
    found = [one for one in models if is_torch(one)]
    if not found:
        if wishes.train:
            raise PublisherError(
                "model_unsupported",
                "A training function needs the PyTorch model, and only files were given.",
                field="train",
                hint="Name the function that returns the model as MODEL: FILE.py:function.",
            )
        return [Path(one) for one in models], None
    if len(found) > 1:
        raise PublisherError(
            "model_unsupported",
            "Two models of PyTorch were given.",
            field="model",
            hint="Give one.",
        )
    source = TorchModel(
        str(found[0]), _example(calibration), wishes.python or Path(sys.executable),
        on_line=wishes.on_line,
    )  # fmt: skip
    path = folder / "exported.onnx"
    done = export_model(source, path)
    exported = _lineage(read_source(path), str(found[0]), done)
    given = [exported if is_torch(one) else Path(one) for one in models]
    return given, TorchTrainer(source, wishes.train)


def _lineage(source: SourceModel, reference: str, done: Done) -> SourceModel:
    """The weights are the parent. A path of the machine is not written down, its name is."""
    facts: Mapping[str, object] = {
        "torch_model": Path(reference).name,
        "torch_code_sha256": done.code_sha256,
        **{f"{name}_version": version for name, version in done.versions.items()},
    }
    return SourceModel(source.path, source.facts, source.sha256, (done.weights_sha256,), facts)


def _example(calibration: Data) -> Arrays:
    """The first cases of the calibration data, by the names of its arrays."""
    if not isinstance(calibration, Path) or calibration.is_dir():
        message = "A PyTorch model is exported with the first cases of an .npz file."
        raise data_error("calibration", "calibration", message, _HINT)
    try:
        arrays = named_inputs(calibration, DATA_BYTES)
    except PublisherError as error:
        raise data_error("calibration", calibration.name, error.message, _HINT) from error
    if any(array.ndim == 0 or len(array) < 2 for array in arrays.values()) or not arrays:
        message = "A PyTorch model is exported with two cases at least."
        raise data_error("calibration", next(iter(arrays), calibration.name), message, _HINT)
    return {
        name: array[:_EXAMPLE_CASES].astype(np.float32)
        if array.dtype == np.float64
        else array[:_EXAMPLE_CASES]
        for name, array in arrays.items()
    }
