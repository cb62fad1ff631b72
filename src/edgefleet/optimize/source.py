"""Reads the float model of a publisher, and finds the operators that it has."""

from collections.abc import Sequence
from pathlib import Path

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import file_sha256
from edgefleet.optimize.source_model import SourceModel
from edgefleet.serving.model_file import inspect_model


def read_source(path: Path) -> SourceModel:
    """The model at ``path``, ONNX or TFLite.

    Raises the errors of ``inspect_model``: a pickle, weights in other files, and a file over the
    limits are refused.
    """
    try:
        facts = inspect_model(path)
        return SourceModel(path, facts, file_sha256(path))
    except OSError as error:
        raise PublisherError(
            "not_a_model", f"{path} cannot be read: {error.strerror}.", field="model"
        ) from error


def by_runtime(sources: Sequence[SourceModel]) -> dict[str, SourceModel]:
    """The sources by the runtime that measures them.

    Raises PublisherError ``model_unsupported`` for two files of one runtime, or files that are not
    one model: with other inputs or outputs.
    """
    found: dict[str, SourceModel] = {}
    for source in sources:
        runtime = "litert" if "edgetpu" in source.facts.runtimes else source.facts.runtimes[0]
        if runtime in found:
            raise PublisherError(
                "model_unsupported",
                f"{found[runtime].path.name} and {source.path.name} are both for {runtime}.",
                field="model",
                hint="Give one file for each format: one ONNX file and one TFLite file.",
            )
        found[runtime] = source
    first = sources[0]
    for other in sources[1:]:
        if _interface(other) != _interface(first):
            raise PublisherError(
                "model_unsupported",
                f"{other.path.name} has the tensors {_interface(other)}, {first.path.name} has "
                f"{_interface(first)}: they are not one model.",
                field="model",
                hint="Export both with the same names and the same types of inputs and outputs.",
            )
    return found


def _interface(source: SourceModel) -> tuple[tuple[str, str], ...]:
    specs = (*source.facts.inputs, *source.facts.outputs)
    return tuple(sorted((spec.name, spec.datatype) for spec in specs))


def operators_of(source: SourceModel) -> frozenset[str]:
    """The operators of an ONNX file. Empty for others: no recipe for them asks."""
    if "onnx" not in source.facts.runtimes:
        return frozenset()
    import onnx  # noqa: PLC0415 - 31 MiB

    graph = onnx.load(source.path, load_external_data=False).graph
    return frozenset(node.op_type for node in graph.node)
