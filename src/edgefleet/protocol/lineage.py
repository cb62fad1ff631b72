"""The lineage of a release: a statement of how its variants were made, and how they were judged.

The document is an in-toto Statement (https://in-toto.io/Statement/v1; read in in-toto/attestation,
spec/v1/statement.md and resource_descriptor.md, version 1.1) with SLSA's provenance as predicate
(https://slsa.dev/spec/v1.0/provenance), so tools that read those read it. The names of fields are
theirs. ``edgefleet_evaluation`` is an extension, named as SLSA asks for.

By the parsing rules of both, unknown fields are ignored, and null means that a field is not set.
Fields that they leave optional may be missing in the documents of other tools. Other predicates
than SLSA's provenance are refused. ``BUILD_TYPE`` and ``builder.id`` should resolve to a page, and
do not: the project has no domain.

The manifest of the release has the digest of the document, so the signature covers it. Devices do
not fetch it.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.device import Digest
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.wire import decode

LINEAGE_BYTES: Final = 4 << 20
_EVALUATION: Final = "edgefleet_evaluation"
BUILD_TYPE: Final = "https://edgefleet.example/optimize/v1"


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ResourceDescriptor of in-toto: a file, a data set or another thing, by its digest.

    ``digest`` has hexadecimal digests by the name of their function.
    """

    name: str = ""
    digest: Mapping[str, str] = {}
    uri: str = ""
    annotations: Mapping[str, object] = {}

    @property
    def sha256(self) -> str | None:
        return self.digest.get("sha256")


class BuildDefinition(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """How the variants were made. ``external_parameters`` are those that the publisher gave.

    ``internal_parameters`` are the builder's own: the machine, and the recipes that its search
    chose. ``resolved_dependencies`` are the source model, its parents and the data.
    """

    build_type: str
    external_parameters: Mapping[str, object]
    internal_parameters: Mapping[str, object] = {}
    resolved_dependencies: tuple[Resource, ...] = ()


class Builder(msgspec.Struct, frozen=True, kw_only=True):
    """The builder of the variants: tools and their versions."""

    id: str
    version: Mapping[str, str] = {}


class BuildMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Times in UTC, as RFC 3339 writes them. Empty: the document does not have them."""

    invocation_id: str = ""
    started_on: str = ""
    finished_on: str = ""


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    builder: Builder
    metadata: BuildMetadata = BuildMetadata()


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement on one variant, as ``optimize.judgement.Judgement`` without single cases."""

    profile: str
    sha256: Digest
    recipe: Mapping[str, object]
    judgement: Mapping[str, object] | None


class Provenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"build_definition": "buildDefinition", "run_details": "runDetails"},
):
    """The predicate of SLSA, with the evaluation of each variant."""

    build_definition: BuildDefinition
    run_details: RunDetails
    edgefleet_evaluation: tuple[Evaluation, ...] = ()


class Statement(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"kind": "_type", "predicate_type": "predicateType"},
):
    """The document. ``subject`` are the variants' files."""

    kind: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
    subject: Annotated[tuple[Resource, ...], Meta(min_length=1)]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Provenance


def read_lineage(data: bytes) -> Statement:
    """The statement in ``data``. Raises PublisherError ``release_file_invalid``."""
    if len(data) > LINEAGE_BYTES:
        raise _invalid(f"It has {len(data):,} bytes; {LINEAGE_BYTES:,} are allowed.")
    try:
        read = _without_nulls(msgspec.json.decode(data))
    except msgspec.DecodeError as error:
        raise _invalid(f"{error}.") from error
    statement = decode(msgspec.json.encode(read), Statement, code="release_file_invalid")
    if any(not one.digest for one in statement.subject):
        raise _invalid("One of its subjects has no digest.")
    return statement


def check_lineage(data: bytes, manifest: ReleaseManifest) -> None:
    """Check that the statement is about the variants of ``manifest``.

    Raises PublisherError ``release_file_invalid``.
    """
    known = {one.sha256 for one in read_lineage(data).subject}
    for variant in manifest.variants:
        if variant.artifact.sha256 not in known:
            raise _invalid(
                f"None of its subjects is the variant for {variant.profile} "
                f"({variant.artifact.sha256[:16]})."
            )


def _without_nulls(value: object) -> object:
    """Without the fields that are null. Judgements stay whole: null has a meaning there."""
    match value:
        case dict():
            return {
                name: one if name == _EVALUATION else _without_nulls(one)
                for name, one in value.items()
                if one is not None
            }
        case list():
            return [_without_nulls(one) for one in value]
        case _:
            return value


def _invalid(message: str) -> PublisherError:
    return PublisherError(
        "release_file_invalid",
        f"The lineage document does not fit. {message}",
        field="lineage",
        hint="Make the release again with `edgefleet model optimize`, or leave the document out.",
    )
