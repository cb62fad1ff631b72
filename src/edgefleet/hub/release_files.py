"""Checks of an uploaded file against its manifest. They run in a child process only.

``hub.file_reader`` starts the child. The hub itself reads no byte of a model or a golden set.
"""

from collections.abc import Sequence
from pathlib import Path

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.protocol.lineage import check_lineage
from edgefleet.protocol.release import ReleaseManifest, TensorSpec, Variant
from edgefleet.serving.golden_set import read_golden
from edgefleet.serving.model_file import inspect_model


def check_variant(variant: Variant, path: Path, field: str) -> None:
    """Check the file of a variant. Raises PublisherError."""
    try:
        facts = inspect_model(path)
    except PublisherError as error:
        raise PublisherError(
            error.code, error.message, field=f"{field}.artifact", hint=error.hint
        ) from error
    if variant.runtime not in facts.runtimes:
        raise _invalid(f"{field}.runtime", f"The file is for {' or '.join(facts.runtimes)}.")
    if (variant.inputs, variant.outputs) == facts.raw:
        return
    if facts.inputs != variant.inputs:
        raise _invalid(f"{field}.inputs", f"The model's inputs are {_names(facts.inputs)}.")
    if facts.outputs != variant.outputs:
        raise _invalid(f"{field}.outputs", f"The model's outputs are {_names(facts.outputs)}.")


def check_golden(manifest: ReleaseManifest, path: Path) -> None:
    """Check the golden set for each interface of the release. Raises PublisherError."""
    golden = manifest.golden
    for inputs, outputs in {(variant.inputs, variant.outputs) for variant in manifest.variants}:
        cases = read_golden(path, inputs, outputs, golden.comparison).cases
        if cases != golden.cases:
            raise PublisherError(
                "golden_mismatch",
                f"The golden set has {counted(cases, 'case')}, the manifest {golden.cases}.",
                field="golden.cases",
            )


def check_lineage_file(manifest: ReleaseManifest, path: Path) -> None:
    """Check the lineage document of the release. Raises PublisherError."""
    check_lineage(path.read_bytes(), manifest)


def _names(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{at.name} {at.datatype} {list(at.shape)}" for at in tensors)


def _invalid(field: str, message: str) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field)
