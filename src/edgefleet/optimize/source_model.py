"""The model that a publisher gives, and the interface of what makes candidates from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import Step
from edgefleet.protocol.device import Digest
from edgefleet.serving.model_file import ModelFacts


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A float model as a file: ONNX or TFLite.

    ``parents`` are the digests of what it was made from (a PyTorch file, an MLflow run), and
    ``lineage`` is what those say of themselves, such as an MLflow run id and its metrics.
    """

    path: Path
    facts: ModelFacts
    sha256: Digest
    parents: tuple[Digest, ...] = ()
    lineage: Mapping[str, object] = field(default_factory=dict)


class Technique(Protocol):
    """One kind of step, in one runtime."""

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the file ``made`` from ``model``. The same arguments give the same bytes.

        Raises PublisherError ``step_failed`` with the words of the tool.
        """
        ...

    def versions(self) -> Mapping[str, str]:
        """The tools and their versions: part of the key of the cache."""
        ...


class Trainer(Protocol):
    """The publisher's training function, for steps that change the weights (Prune, Distil)."""

    def train(self, step: Step, model: Path, made: Path) -> object:
        """Make the trained ONNX file ``made``. Raises PublisherError ``step_failed``."""
        ...
