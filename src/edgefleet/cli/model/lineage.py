"""The lineage of a release on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from edgefleet.base.errors import NetworkError, OperatorError, PublisherError
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import size

if TYPE_CHECKING:
    from edgefleet.client.hub import HubClient
    from edgefleet.protocol.lineage import Evaluation, Resource, Statement


def fetch_lineage(hub: HubClient, model: str, release: str) -> Statement:
    """The lineage document of a release, as its signed manifest names it.

    Raises OperatorError ``not_found`` for a release without one; NetworkError
    ``transfer_damaged`` if the bytes are not those that the manifest names.
    """
    from edgefleet.protocol.lineage import LINEAGE_BYTES, read_lineage

    artifact = hub.release(model, release).manifest.lineage
    if artifact is None:
        raise OperatorError(
            "not_found",
            f"Release {model} {release} has no lineage document.",
            field="lineage",
            hint="`edgefleet model optimize` writes one; release.toml names it as `lineage`.",
        )
    if artifact.size_bytes > LINEAGE_BYTES:
        raise PublisherError(
            "release_file_invalid",
            f"The lineage document has {artifact.size_bytes:,} bytes; {LINEAGE_BYTES:,} are "
            "allowed.",
            field="lineage",
        )
    data = bytearray()
    for piece in hub.download(artifact.sha256):
        data += piece
        if len(data) > LINEAGE_BYTES:
            break
    if sha256(data).hexdigest() != artifact.sha256:
        raise NetworkError(
            "transfer_damaged",
            f"The lineage document is not the one that the manifest names: {artifact.sha256}.",
            hint="Try again. If it stays so, the file on the hub is damaged.",
        )
    return read_lineage(bytes(data))


def lineage_lines(statement: Statement) -> list[str]:
    """The document for people."""
    build, run = statement.predicate.build_definition, statement.predicate.run_details
    rows = [
        ("made", f"{run.metadata.started_on or 'unknown'} to {run.metadata.finished_on}"),
        ("builder", run.builder.id),
        ("wanted", _pairs(build.external_parameters)),
        ("tools", _pairs(run.builder.version)),
        ("machine", _machine(build.internal_parameters)),
    ]
    sources = [
        (one.name or one.uri, _digest(one), _pairs(one.annotations))
        for one in build.resolved_dependencies
    ]
    files = [(one.name, _digest(one)) for one in statement.subject]
    judged = [_judged(one) for one in statement.predicate.edgefleet_evaluation]
    head = ("profile", "file", "recipe", "size", "metric", "baseline", "smaller", "faster")
    texts = [
        f"{one.profile}: {one.judgement.get('text', '')}"
        for one in statement.predicate.edgefleet_evaluation
        if one.judgement
    ]
    return [
        *facts(rows),
        "",
        *table(("made of", "digest", "facts"), sources),
        "",
        *table(("file", "digest"), files),
        "",
        *table(head, judged),
        *texts,
    ]


def _digest(one: Resource) -> str | None:
    """The first digest, of another function than SHA-256 with its name."""
    if one.sha256:
        return one.sha256[:16]
    return next((f"{name}:{digest[:16]}" for name, digest in one.digest.items()), None)


def _judged(one: Evaluation) -> tuple[object, ...]:
    from edgefleet.protocol.field_figures import recipe_name

    judgement = one.judgement or {}
    candidate = _mapping(judgement.get("candidate"))
    accuracy = _mapping(judgement.get("accuracy"))
    bytes_ = candidate.get("size_bytes")
    return (
        one.profile,
        one.sha256[:16],
        recipe_name(one.recipe),
        size(bytes_) if isinstance(bytes_, int) else None,
        _decimals(accuracy.get("candidate")),
        _decimals(accuracy.get("baseline")),
        _times(judgement.get("smaller")),
        _times(judgement.get("faster")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _decimals(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None


def _times(value: object) -> str | None:
    return f"{value:.2f}x" if isinstance(value, int | float) else None


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _machine(parameters: Mapping[str, object]) -> str:
    machine = _mapping(parameters.get("machine"))
    instructions = machine.get("instructions")
    shown = {name: value for name, value in machine.items() if name != "instructions"}
    more = " ".join(map(str, instructions)) if isinstance(instructions, list) else ""
    return _pairs(shown) + (f", {more}" if more else "")
