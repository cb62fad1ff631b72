"""Checks before a release is published: complete, consistent, and equal to its manifest."""

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.file_reader import FileReader
from edgefleet.hub.limits import VARIANTS_PER_RELEASE
from edgefleet.protocol.lineage import LINEAGE_BYTES
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.serving.release_rules import check_rules


async def check_release(manifest: ReleaseManifest, blobs: Blobs, reader: FileReader) -> None:
    """Check a manifest against itself and against the uploaded bytes.

    Raises OperatorError ``name_invalid``, PublisherError ``release_file_invalid`` (the manifest
    contradicts itself) or ``release_incomplete``, or the errors of ``FileReader.check``.
    """
    _check_manifest(manifest)
    for index, variant in enumerate(manifest.variants):
        _check_artifact(variant.artifact, blobs, f"variants[{index}].artifact")
    _check_artifact(manifest.golden.artifact, blobs, "golden.artifact")
    if manifest.lineage is not None:
        _check_artifact(manifest.lineage, blobs, "lineage")
        if manifest.lineage.size_bytes > LINEAGE_BYTES:
            raise _invalid("lineage.size_bytes", f"At most {LINEAGE_BYTES:,} bytes are allowed.")
    await reader.check(manifest)


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


def _invalid(field: str, message: str) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field)
