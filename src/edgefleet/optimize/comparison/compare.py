"""Compares two models: sizes, operators, interface and weights, and their answers to samples."""

from collections.abc import Iterator
from pathlib import Path

from edgefleet.base.ids import file_sha256
from edgefleet.optimize.comparison.answers import SampleComparison
from edgefleet.optimize.comparison.costs import CostComparison
from edgefleet.optimize.comparison.weights import distances, median_distance
from edgefleet.optimize.inspection.fit import precision
from edgefleet.optimize.inspection.graph import ModelGraph, operators, parameters
from edgefleet.optimize.inspection.inspect import read_graph
from edgefleet.optimize.transfer_size import compressed_size, delta_size
from edgefleet.protocol.interface import variant_changes
from edgefleet.protocol.release import Artifact, Variant, fixed_batch
from edgefleet.protocol.wire import Wire
from edgefleet.serving.model_file import ModelFacts, inspect_model

_BATCH = 1
_MEMORY_MIB = 1024


class FileFacts(Wire, frozen=True, kw_only=True):
    """One of the two files. ``compressed_bytes`` are those of a transfer (zlib)."""

    sha256: str
    size_bytes: int
    compressed_bytes: int
    precision: str
    parameters: int


class OperatorChange(Wire, frozen=True, kw_only=True):
    """How many operators of one type the files have."""

    operator: str
    before: int
    after: int


class FileComparison(Wire, frozen=True, kw_only=True):
    """Two files. ``profile`` is empty unless they are variants of releases.

    ``delta_bytes`` is the estimated transfer to a device that has the first file. ``interface`` are
    the changes that clients notice. ``median_distance`` is that of ``compared_weights`` weights by
    ``weights.distances``; None if none could be compared. ``samples`` is None without samples,
    ``costs`` if latency was not measured; ``costs_text`` then says why, if it was asked for.
    """

    profile: str
    before: FileFacts
    after: FileFacts
    delta_bytes: int
    operators: tuple[OperatorChange, ...]
    interface: tuple[str, ...]
    compared_weights: int
    median_distance: float | None
    samples: SampleComparison | None = None
    costs: CostComparison | None = None
    costs_text: str = ""


def compare_files(before: Path, after: Path, profile: str = "") -> FileComparison:
    """Compare two model files, without samples. Raises the errors of ``inspect_model``."""
    facts = inspect_model(before), inspect_model(after)
    apart = distances(before, after, facts)
    old, new = (file_variant(*one) for one in zip((before, after), facts, strict=True))
    graphs = [
        read_graph(path, one, _BATCH) for path, one in zip((before, after), facts, strict=True)
    ]
    return FileComparison(
        profile=profile,
        before=_file_facts(before, old.artifact, graphs[0]),
        after=_file_facts(after, new.artifact, graphs[1]),
        delta_bytes=delta_size(after, before),
        operators=tuple(_operators(*graphs)),
        interface=tuple(variant_changes(old, new)),
        compared_weights=len(apart),
        median_distance=median_distance(apart),
    )


def file_variant(path: Path, facts: ModelFacts) -> Variant:
    """A variant with which the file is compared and run on this machine."""
    return Variant(
        profile="compared",
        runtime=facts.runtimes[0],
        precision="fp32",
        artifact=Artifact(sha256=file_sha256(path), size_bytes=path.stat().st_size),
        inputs=facts.inputs,
        outputs=facts.outputs,
        max_batch=fixed_batch(facts.inputs) or _BATCH,
        memory_limit_mib=_MEMORY_MIB,
    )


def _file_facts(path: Path, artifact: Artifact, graph: ModelGraph) -> FileFacts:
    return FileFacts(
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        compressed_bytes=compressed_size(path),
        precision=precision(graph),
        parameters=parameters(graph),
    )


def _operators(before: ModelGraph, after: ModelGraph) -> Iterator[OperatorChange]:
    """The types of which the files have different numbers."""
    old, new = ({one.operator: one.count for one in operators(graph)} for graph in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, 0) != new.get(name, 0):
            yield OperatorChange(operator=name, before=old.get(name, 0), after=new.get(name, 0))
