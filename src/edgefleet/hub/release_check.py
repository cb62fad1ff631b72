"""Checks before a release is published: complete, consistent, and equal to its manifest."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.base.texts import counted
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.limits import VARIANTS_PER_RELEASE
from edgefleet.protocol.lineage import LINEAGE_BYTES, check_lineage
from edgefleet.protocol.release import Artifact, ReleaseManifest, TensorSpec, Variant
from edgefleet.protocol.runtimes import BUILT_IN
from edgefleet.serving.golden_set import read_golden
from edgefleet.serving.model_file import inspect_model
from edgefleet.serving.release_rules import check_rules


async def check_release(manifest: ReleaseManifest, blobs: Blobs) -> None:
    """Check a manifest against itself and against the uploaded bytes.

    Raises OperatorError ``name_invalid`` or PublisherError: ``release_file_invalid`` (the manifest
    contradicts itself), ``release_incomplete``, ``golden_mismatch``, ``not_a_model``,
    ``model_truncated``, ``model_is_pickle``, ``model_unsupported``.
    """
    _check_manifest(manifest)
    for index, variant in enumerate(manifest.variants):
        _check_artifact(variant.artifact, blobs, f"variants[{index}].artifact")
    _check_artifact(manifest.golden.artifact, blobs, "golden.artifact")
    if manifest.lineage is not None:
        _check_artifact(manifest.lineage, blobs, "lineage")
        if manifest.lineage.size_bytes > LINEAGE_BYTES:
            raise _invalid("lineage.size_bytes", f"At most {LINEAGE_BYTES:,} bytes are allowed.")
    await asyncio.to_thread(_check_bytes, manifest, blobs)


def _check_manifest(manifest: ReleaseManifest) -> None:
    check_name(manifest.model, field="model")
    check_name(manifest.release, field="release")
    if not 1 <= len(manifest.variants) <= VARIANTS_PER_RELEASE:
        raise _invalid(
            "variants",
            f"{len(manifest.variants)} variants; 1 to {VARIANTS_PER_RELEASE} are allowed.",
        )
    profiles: set[str] = set()
    for index, variant in enumerate(manifest.variants):
        field = f"variants[{index}]"
        check_name(variant.profile, field=f"{field}.profile")
        if variant.profile in profiles:
            raise _invalid(f"{field}.profile", f"Profile {variant.profile} has two variants.")
        profiles.add(variant.profile)
        if variant.max_batch < 1:
            raise _invalid(
                f"{field}.max_batch", f"{variant.max_batch} inputs; at least 1 is needed."
            )
        if variant.memory_limit_mib < 1:
            raise _invalid(
                f"{field}.memory_limit_mib",
                f"{variant.memory_limit_mib} MiB; at least 1 is needed.",
            )
    for name in ("min_accuracy", "min_agreement"):
        if not 0 <= getattr(manifest.golden, name) <= 1:
            raise _invalid(
                f"golden.{name}", f"{getattr(manifest.golden, name)} is not between 0 and 1."
            )
    check_rules(manifest)


def _check_artifact(artifact: Artifact, blobs: Blobs, field: str) -> None:
    try:
        size = blobs.size(artifact.sha256)
    except OperatorError as error:
        raise _invalid(f"{field}.sha256", error.message) from error
    if size is None:
        raise PublisherError(
            "release_incomplete", f"Artifact {artifact.sha256} is not uploaded.", field=field
        )
    if size != artifact.size_bytes:
        raise _invalid(
            f"{field}.size_bytes",
            f"The uploaded artifact has {size} bytes, the manifest {artifact.size_bytes}.",
        )


def _check_bytes(manifest: ReleaseManifest, blobs: Blobs) -> None:
    if manifest.lineage is not None:
        check_lineage(blobs.path(manifest.lineage.sha256).read_bytes(), manifest)
    for index, variant in enumerate(manifest.variants):
        _check_variant(variant, blobs.path(variant.artifact.sha256), f"variants[{index}]")
    golden = manifest.golden
    for inputs, outputs in {(variant.inputs, variant.outputs) for variant in manifest.variants}:
        path = blobs.path(golden.artifact.sha256)
        cases = read_golden(path, inputs, outputs, golden.comparison).cases
        if cases != golden.cases:
            raise PublisherError(
                "golden_mismatch",
                f"The golden set has {counted(cases, 'case')}, the manifest {golden.cases}.",
                field="golden.cases",
            )


def _check_variant(variant: Variant, path: Path, field: str) -> None:
    if variant.runtime not in BUILT_IN:
        return  # a user's own runtime: its devices prove the file, and the hub cannot read it
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


def _names(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{at.name} {at.datatype} {list(at.shape)}" for at in tensors)


def _invalid(field: str, message: str) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field)
