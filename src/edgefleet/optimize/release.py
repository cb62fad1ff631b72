"""A release folder: what a publisher writes, and the manifest that is built from it.

The folder holds ``release.toml``, the model files and the golden set::

    model = "digits"
    release = "2"
    parent = "1"                    # optional: the release that this one was made from
    notes = "More training data."   # optional

    [golden]
    file = "golden.npz"
    min_accuracy = 0.95             # share of cases answered as labelled, on each device
    min_agreement = 0.97            # share of cases answered as the reference outputs

    [quality]
    output = "probabilities"        # the first output; it holds class scores
    scores = "probabilities"        # or "logits"
    max_confidence_drop = 0.10      # optional
    min_requests = 20               # optional

    [[variant]]                     # one for each hardware class
    profile = "jetson_nano"
    precision = "fp16"
    file = "fp16.onnx"
    max_batch = 4                   # optional for a profile of ``optimize.profiles``
    memory_limit_mib = 3072         # likewise

Files stand inside the folder; two variants may name the same one. Users read the same in
``docs/release-folder.md``.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.optimize import limits
from edgefleet.optimize.profiles import PROFILES
from edgefleet.protocol.release import (
    Artifact,
    Golden,
    Precision,
    Quality,
    ReleaseManifest,
    Variant,
)
from edgefleet.serving.formats import ModelFacts, inspect_golden, inspect_model

RELEASE_FILE: Final = "release.toml"

_Share = Annotated[float, Meta(ge=0, le=1)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of release.toml; a key that is not known is a mistake."""


class _GoldenTable(_Table, frozen=True, kw_only=True):
    file: str
    min_accuracy: _Share
    min_agreement: _Share


class _QualityTable(_Table, frozen=True, kw_only=True):
    output: str
    scores: Literal["probabilities", "logits"]
    max_confidence_drop: _Share = 0.10
    min_requests: Annotated[int, Meta(ge=1)] = 20


class _VariantTable(_Table, frozen=True, kw_only=True):
    profile: str
    precision: Precision
    file: str
    max_batch: Annotated[int, Meta(ge=1, le=limits.BATCH)] | None = None
    memory_limit_mib: Annotated[int, Meta(ge=1, le=limits.MEMORY_LIMIT_MIB)] | None = None


class _ReleaseFile(_Table, frozen=True, kw_only=True):
    model: str
    release: str
    golden: _GoldenTable
    quality: _QualityTable
    variant: Annotated[tuple[_VariantTable, ...], Meta(min_length=1, max_length=limits.VARIANTS)]
    parent: str | None = None
    notes: Annotated[str, Meta(max_length=limits.NOTES_CHARS)] = ""


@dataclass(frozen=True, slots=True)
class BuiltRelease:
    """A manifest, not signed yet, and where the artifacts that it names are, by SHA-256."""

    manifest: ReleaseManifest
    files: Mapping[str, Path]


def build_release(folder: Path, *, created_at: float) -> BuiltRelease:
    """Read ``folder`` and every file that it names.

    Raises PublisherError: ``release_file_invalid`` with the TOML path of the value at fault as its
    field (``variant[1].file``), the codes of ``inspect_model`` with the path of the file's value,
    or ``golden_mismatch`` with the array's name.
    """
    said = _read(folder)
    artifacts = _Artifacts(folder)
    facts: dict[str, ModelFacts] = {}
    variants: list[Variant] = []
    for number, table in enumerate(said.variant):
        field = f"variant[{number}]"
        artifact = artifacts.take(table.file, f"{field}.file")
        if artifact.sha256 not in facts:
            facts[artifact.sha256] = _inspect(artifacts.files[artifact.sha256], f"{field}.file")
        variants.append(_variant(table, field, artifact, facts[artifact.sha256]))
    golden = artifacts.take(said.golden.file, "golden.file")
    cases = {
        inspect_golden(artifacts.files[golden.sha256], model.inputs, model.outputs)
        for model in facts.values()
    }
    manifest = ReleaseManifest(
        model=said.model,
        release=said.release,
        variants=tuple(variants),
        golden=Golden(
            artifact=golden,
            cases=cases.pop(),
            min_accuracy=said.golden.min_accuracy,
            min_agreement=said.golden.min_agreement,
        ),
        quality=_quality(said.quality, variants),
        created_at=created_at,
        parent=said.parent,
        notes=said.notes,
    )
    return BuiltRelease(manifest, MappingProxyType(artifacts.files))


class _Artifacts:
    """The files that a release folder names, read once each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._named: dict[str, Artifact] = {}
        self.files: dict[str, Path] = {}

    def take(self, name: str, field: str) -> Artifact:
        """The artifact in the file ``name``; it must stand inside the folder."""
        if name in self._named:
            return self._named[name]
        try:
            path = (self._folder / name).resolve()
            if not path.is_relative_to(self._folder):
                raise _invalid(f"{name!r} is outside the release folder.", field)
            with path.open("rb") as file:
                sha256 = file_digest(file, "sha256").hexdigest()
                artifact = Artifact(sha256=sha256, size_bytes=file.tell())
        except (OSError, ValueError) as error:
            raise _invalid(f"{name!r} cannot be read: {error}.", field) from error
        self._named[name] = artifact
        self.files.setdefault(sha256, path)
        return artifact


def _read(folder: Path) -> _ReleaseFile:
    path = folder / RELEASE_FILE
    try:
        with path.open("rb") as file:
            data = file.read(limits.RELEASE_FILE_BYTES + 1)
    except OSError as error:
        raise PublisherError(
            "release_file_invalid",
            f"{path} cannot be read.",
            hint=f"Name a folder that holds a {RELEASE_FILE}.",
        ) from error
    if len(data) > limits.RELEASE_FILE_BYTES:
        raise _invalid(f"It is larger than {limits.RELEASE_FILE_BYTES} bytes.")
    try:
        said = msgspec.convert(tomllib.loads(data.decode()), _ReleaseFile)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `")
        raise _invalid(f"{message}.", at.rstrip("`").removeprefix("$").lstrip(".")) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"It is no TOML: {error}.") from error
    _check_names(said)
    return said


def _check_names(said: _ReleaseFile) -> None:
    profiles = [table.profile for table in said.variant]
    names = {
        "model": said.model,
        "release": said.release,
        **({} if said.parent is None else {"parent": said.parent}),
        **{f"variant[{number}].profile": name for number, name in enumerate(profiles)},
    }
    for field, name in names.items():
        try:
            check_name(name, field=field)
        except OperatorError as error:
            raise _invalid(error.message, field, hint=error.hint) from error
    for number, name in enumerate(profiles):
        if name in profiles[:number]:
            raise _invalid(f"Profile {name!r} has a variant already.", f"variant[{number}].profile")
    if said.parent == said.release:
        raise _invalid("A release is not made from itself.", "parent")


def _inspect(path: Path, field: str) -> ModelFacts:
    try:
        return inspect_model(path)
    except PublisherError as error:
        raise PublisherError(
            error.code, f"{path.name}: {error.message}", field=field, hint=error.hint
        ) from error


def _variant(table: _VariantTable, field: str, artifact: Artifact, facts: ModelFacts) -> Variant:
    known = PROFILES.get(table.profile)
    max_batch = table.max_batch or (known.max_batch if known else None)
    memory_limit_mib = table.memory_limit_mib or (known.memory_limit_mib if known else None)
    if max_batch is None:
        raise _invalid(f"What {table.profile!r} takes is not known.", f"{field}.max_batch")
    if memory_limit_mib is None:
        raise _invalid(f"What {table.profile!r} has is not known.", f"{field}.memory_limit_mib")
    for spec in facts.inputs:
        if spec.shape[0] not in (-1, max_batch):
            raise _invalid(
                f"Input {spec.name!r} takes batches of {spec.shape[0]} only.", f"{field}.max_batch"
            )
    return Variant(
        profile=table.profile,
        runtime=known.runtime if known else "onnx",
        precision=table.precision,
        artifact=artifact,
        inputs=facts.inputs,
        outputs=facts.outputs,
        max_batch=max_batch,
        memory_limit_mib=memory_limit_mib,
    )


def _quality(table: _QualityTable, variants: list[Variant]) -> Quality:
    """Every variant must have the output first, where devices read the answer from."""
    for variant in variants:
        spec = variant.outputs[0]
        if spec.name != table.output:
            raise _invalid(
                f"The first output of {variant.profile} is {spec.name!r}, not {table.output!r}.",
                "quality.output",
                hint="Name the first output, and export with the class scores first.",
            )
        if len(spec.shape) != 2 or not spec.datatype.startswith("FP"):
            raise _invalid(
                f"Output {spec.name!r} is {spec.datatype} of shape {spec.shape}.",
                "quality.output",
                hint="Name an output of class scores: floats of shape [-1, classes].",
            )
    return Quality(
        output=table.output,
        scores=table.scores,
        max_confidence_drop=table.max_confidence_drop,
        min_requests=table.min_requests,
    )


def _invalid(message: str, field: str | None = None, *, hint: str | None = None) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field or None, hint=hint)
