"""Inspects a model file: the one entry of this package."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgefleet.optimize.inspection.fit import ProfileFit, fit, precision
from edgefleet.optimize.inspection.graph import (
    MemoryEstimate,
    ModelGraph,
    OperatorFacts,
    memory,
    operators,
    parameters,
    weights_by_type,
)
from edgefleet.optimize.inspection.onnx_graph import read_onnx
from edgefleet.optimize.inspection.tflite_graph import read_tflite_graph
from edgefleet.optimize.profiles import PROFILES, Profile
from edgefleet.serving.model_file import ModelFacts, inspect_model


@dataclass(frozen=True, slots=True)
class Inspection:
    """The facts of a file. ``precision`` is that of most weights; ``weights_bytes`` by datatype."""

    facts: ModelFacts
    operators: tuple[OperatorFacts, ...]
    parameters: int
    precision: str
    weights_bytes: dict[str, int]
    memory: MemoryEstimate
    profiles: tuple[ProfileFit, ...]


def read_graph(path: Path, facts: ModelFacts, batch: int) -> ModelGraph:
    """The graph of a file with ``facts``, of either format. Raises PublisherError."""
    read = read_onnx if "onnx" in facts.runtimes else read_tflite_graph
    return read(path, batch)


def inspect_file(
    path: Path, batch: int = 1, profiles: Iterable[Profile] = PROFILES.values()
) -> Inspection:
    """Inspect the model at ``path``. Raises the errors of ``inspect_model``."""
    facts = inspect_model(path)
    graphs = {batch: read_graph(path, facts, batch)}
    fits: list[ProfileFit] = []
    for profile in profiles:
        at = profile.max_batch
        graph = graphs.get(at) or graphs.setdefault(at, read_graph(path, facts, at))
        fits.append(fit(profile, facts, graph, memory(graph)))
    graph = graphs[batch]
    return Inspection(
        facts,
        operators(graph),
        parameters(graph),
        precision(graph),
        weights_by_type(graph),
        memory(graph),
        tuple(fits),
    )
