"""Writes the lineage of variants as ``protocol.lineage`` describes it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, cast
from uuid import NAMESPACE_URL, uuid5

import msgspec

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.recipe import Recipe
from edgefleet.optimize.source_model import SourceModel
from edgefleet.protocol.device import Digest
from edgefleet.protocol.lineage import (
    BUILD_TYPE,
    BuildDefinition,
    Builder,
    BuildMetadata,
    Evaluation,
    Provenance,
    Resource,
    RunDetails,
    Statement,
)
from edgefleet.protocol.wire import encode

LINEAGE_FILE: Final = "lineage.json"
_TOOLS: Final = ("edgefleet", "onnx", "onnxruntime", "numpy", "onnxslim", "ai-edge-litert",
                 "ai-edge-quantizer", "skl2onnx", "pillow")  # fmt: skip
_SINGLE_CASES: Final = ("cases", "resampled")  # they say much of the data, and are long


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A variant of the release. ``judgement`` is None if it was not judged."""

    profile: str
    file: str
    sha256: Digest
    recipe: Recipe
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class Making:
    """Sources, data, tools and machine of the variants. Times in seconds since 1970.

    ``data`` are the digests of data sets by purpose, such as ``calibration``, and ``data_facts``
    say how they were made, such as the preprocessing of images. ``tools`` and
    ``machine`` are ``tool_versions()`` and ``machine_facts()`` of the machine that made them.
    ``wishes`` are further parameters that the publisher gave, such as the metric.
    """

    model: str
    release: str
    source: SourceModel
    data: Mapping[str, Digest]
    tools: Mapping[str, str]
    machine: Mapping[str, object]
    started_at: float
    finished_at: float
    data_facts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    wishes: Mapping[str, object] = field(default_factory=dict)


def lineage(made: Sequence[MadeVariant], making: Making) -> Statement:
    """The statement. The same arguments give the same statement."""
    files = {one.file: one.sha256 for one in made}
    started, finished = map(_time, (making.started_at, making.finished_at))
    name = f"{BUILD_TYPE}/{making.model}/{making.release}/{making.source.sha256}/{started}"
    return Statement(
        subject=tuple(
            Resource(name=file, digest={"sha256": digest}) for file, digest in files.items()
        ),
        predicate=Provenance(
            build_definition=BuildDefinition(
                build_type=BUILD_TYPE,
                external_parameters={
                    "model": making.model,
                    "release": making.release,
                    "profiles": [one.profile for one in made],
                    **making.wishes,
                },
                internal_parameters={
                    "machine": dict(making.machine),
                    "recipes": {one.profile: one.recipe.name for one in made},
                },
                resolved_dependencies=tuple(_dependencies(making)),
            ),
            run_details=RunDetails(
                builder=Builder(id=f"{BUILD_TYPE}#builder", version=making.tools),
                metadata=BuildMetadata(
                    invocation_id=str(uuid5(NAMESPACE_URL, name)),
                    started_on=started,
                    finished_on=finished,
                ),
            ),
            edgefleet_evaluation=tuple(map(_evaluation, made)),
        ),
    )


def write_lineage(folder: Path, statement: Statement) -> None:
    """Write ``lineage.json``, which release.toml names as ``lineage``."""
    (folder / LINEAGE_FILE).write_bytes(msgspec.json.format(encode(statement), indent=2) + b"\n")


def tool_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that make variants."""
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _dependencies(making: Making) -> list[Resource]:
    source = making.source
    found = [
        Resource(
            name="source model",
            digest={"sha256": source.sha256},
            annotations=dict(source.lineage),
        )
    ]
    found += [
        Resource(name=f"parent {number}", digest={"sha256": digest})
        for number, digest in enumerate(source.parents, 1)
    ]
    found += [
        Resource(
            name=f"{purpose} data",
            digest={"sha256": digest},
            annotations=making.data_facts.get(purpose, {}),
        )
        for purpose, digest in sorted(making.data.items())
    ]
    return found


def _evaluation(made: MadeVariant) -> Evaluation:
    judged = None if made.judgement is None else _object(made.judgement)
    if judged is not None and isinstance(measured := judged["candidate"], dict):
        for name in _SINGLE_CASES:
            measured.pop(name, None)
    return Evaluation(
        profile=made.profile, sha256=made.sha256, recipe=_object(made.recipe), judgement=judged
    )


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", msgspec.to_builtins(value))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
