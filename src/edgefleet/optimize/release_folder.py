"""Reads a publisher's release folder and builds the manifest from it.

The folder holds ``release.toml``, the model files and the golden set::

    model = "digits"
    release = "2"
    parent = "1"                    # optional: the release that this one was made from
    notes = "More training data."   # optional
    task = "classification"         # optional: what the model does
    lineage = "lineage.json"        # optional: how the variants were made

    [golden]
    file = "golden.npz"
    min_accuracy = 0.95             # share of cases with the labelled class, on each device
    min_agreement = 0.97            # share of cases with the class of the reference output

    [quality]
    output = "probabilities"        # holds class scores; for classification only
    scores = "probabilities"        # or "logits"
    max_confidence_drop = 0.10      # optional
    min_requests = 20               # optional

    [classes]                       # optional: names of classes, of each output that has them
    probabilities = "classes.txt"   # UTF-8, one name a line

    [[variant]]                     # one for each hardware class
    profile = "jetson_nano"
    precision = "fp16"
    file = "fp16.onnx"
    max_batch = 4                   # optional for a profile of ``optimize.profiles``
    memory_limit_mib = 3072         # likewise

Other tasks have a table ``[compare]`` instead of ``[quality]``. Files must be inside the folder;
two variants of one precision may name the same file. The user's page is
``docs/release-folder.md``.
"""

import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.optimize import limits
from edgefleet.optimize.profiles import PROFILES
from edgefleet.protocol.class_names import CLASS_FILE_BYTES, read_names
from edgefleet.protocol.comparisons import Comparison, Top1
from edgefleet.protocol.lineage import check_lineage
from edgefleet.protocol.release import (
    FLOATS,
    Artifact,
    ClassNames,
    Golden,
    Precision,
    Quality,
    ReleaseManifest,
    Runtime,
    Task,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.runtimes import BUILT_IN
from edgefleet.serving.golden_set import read_golden
from edgefleet.serving.model_file import ModelFacts, inspect_model
from edgefleet.serving.release_rules import check_rules
from edgefleet.serving.runtime_versions import FormatVersions

RELEASE_FILE: Final = "release.toml"

_Share = Annotated[float, Meta(ge=0, le=1)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of release.toml. Unknown keys are refused."""


class _GoldenTable(_Table, frozen=True, kw_only=True):
    file: str
    min_accuracy: _Share
    min_agreement: _Share


class _CompareTable(_Table, frozen=True, kw_only=True, omit_defaults=True):
    """The keys of all comparisons; ``kind`` is that of the task by default."""

    kind: Literal["top1", "elementwise", "cosine", "exact", "iou", "map", "plugin"] | None = None
    name: str | None = None
    output: str | None = None
    outputs: tuple[str, ...] | None = None
    absolute: float | None = None
    relative: float | None = None
    least: float | None = None
    class_axis: int | None = None
    boxes: str | None = None
    scores: str | None = None
    classes: str | None = None
    iou: float | None = None
    min_score: float | None = None


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
    runtime: Runtime | None = None
    tensors: Literal["float", "raw"] = "float"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class _ReleaseFile(_Table, frozen=True, kw_only=True):
    model: str
    release: str
    golden: _GoldenTable
    task: Task = "classification"
    compare: _CompareTable = _CompareTable()
    quality: _QualityTable | None = None
    variant: Annotated[tuple[_VariantTable, ...], Meta(min_length=1, max_length=limits.VARIANTS)]
    parent: str | None = None
    notes: Annotated[str, Meta(max_length=limits.NOTES_CHARS)] = ""
    lineage: str | None = None
    classes: Annotated[dict[str, str], Meta(max_length=limits.CLASS_FILES)] = {}


@dataclass(frozen=True, slots=True)
class BuiltRelease:
    """An unsigned manifest, and the paths of its artifacts by SHA-256."""

    manifest: ReleaseManifest
    files: Mapping[str, Path]


def build_release(
    folder: Path, *, created_at: float, changes_interface: bool = False
) -> BuiltRelease:
    """Read ``folder`` and every file that it names.

    Raises PublisherError ``release_file_invalid``; its field is the TOML path of the wrong value
    (``variant[1].file``). Raises the errors of ``inspect_model`` with the TOML path of the file,
    and ``golden_mismatch`` with the name of the array.
    """
    file = _read(folder)
    artifacts = _Artifacts(folder)
    facts: dict[str, ModelFacts] = {}
    variants: list[Variant] = []
    for number, table in enumerate(file.variant):
        field = f"variant[{number}]"
        artifact = artifacts.read(table.file, f"{field}.file")
        if artifact.sha256 not in facts:
            facts[artifact.sha256] = _inspect(
                artifacts.files[artifact.sha256], f"{field}.file", table, field
            )
        variants.append(_variant(table, field, artifact, facts[artifact.sha256]))
    golden = artifacts.read(file.golden.file, "golden.file")
    manifest = ReleaseManifest(
        model=file.model,
        release=file.release,
        variants=tuple(variants),
        golden=Golden(
            artifact=golden,
            cases=0,
            min_accuracy=file.golden.min_accuracy,
            min_agreement=file.golden.min_agreement,
            comparison=_comparison(file, variants[0]),
        ),
        quality=None if file.quality is None else Quality(**msgspec.structs.asdict(file.quality)),
        created_at=created_at,
        parent=file.parent,
        notes=file.notes,
        task=file.task,
        changes_interface=changes_interface,
        lineage=artifacts.read(file.lineage, "lineage") if file.lineage else None,
        classes=tuple(
            ClassNames(output=output, names=artifacts.names(name, f"classes.{output}"))
            for output, name in file.classes.items()
        ),
    )
    _check_rules(manifest, file)
    if manifest.lineage is not None:
        check_lineage(artifacts.files[manifest.lineage.sha256].read_bytes(), manifest)
    cases = {
        read_golden(
            artifacts.files[golden.sha256],
            inputs,
            outputs,
            manifest.golden.comparison,
        ).cases
        for inputs, outputs in {(one.inputs, one.outputs) for one in variants}
    }
    manifest = replace(manifest, golden=replace(manifest.golden, cases=cases.pop()))
    return BuiltRelease(manifest, MappingProxyType(artifacts.files))


class _Artifacts:
    """The files of a release folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._named: dict[str, Artifact] = {}
        self.files: dict[str, Path] = {}

    def read(self, name: str, field: str) -> Artifact:
        """The artifact in the file ``name``, which must be inside the folder."""
        if name in self._named:
            return self._named[name]
        with self._opened(name, field) as file:
            sha256 = file_digest(file, "sha256").hexdigest()
            artifact = Artifact(sha256=sha256, size_bytes=file.tell())
            path = Path(file.name)
        self._named[name] = artifact
        self.files.setdefault(sha256, path)
        return artifact

    def names(self, name: str, field: str) -> tuple[str, ...]:
        """The names of classes in the file ``name``, which is no artifact of its own."""
        with self._opened(name, field) as file:
            return read_names(file.read(CLASS_FILE_BYTES + 1), name, field)

    @contextmanager
    def _opened(self, name: str, field: str) -> Generator[BufferedReader]:
        try:
            path = (self._folder / name).resolve()
            if not path.is_relative_to(self._folder):
                raise _invalid(f"{name!r} is outside the release folder.", field)
            with path.open("rb") as file:
                yield file
        except (OSError, ValueError) as error:
            raise _invalid(f"{name!r} cannot be read: {error}.", field) from error


def _read(folder: Path) -> _ReleaseFile:
    path = folder / RELEASE_FILE
    try:
        with path.open("rb") as file:
            data = file.read(limits.RELEASE_FILE_BYTES + 1)
    except OSError as error:
        raise PublisherError(
            "release_file_invalid",
            f"{path} cannot be read.",
            hint=f"Name a folder with a {RELEASE_FILE}.",
        ) from error
    if len(data) > limits.RELEASE_FILE_BYTES:
        raise _invalid(f"{RELEASE_FILE} has more than {limits.RELEASE_FILE_BYTES:,} bytes.")
    try:
        release = msgspec.convert(tomllib.loads(data.decode()), _ReleaseFile)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `")
        raise _invalid(f"{message}.", at.rstrip("`").removeprefix("$").lstrip(".")) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"{RELEASE_FILE} is not TOML: {error}.") from error
    _check_names(release)
    return release


def _check_names(release: _ReleaseFile) -> None:
    profiles = [table.profile for table in release.variant]
    names = {
        "model": release.model,
        "release": release.release,
        **({} if release.parent is None else {"parent": release.parent}),
        **{f"variant[{number}].profile": name for number, name in enumerate(profiles)},
    }
    for field, name in names.items():
        try:
            check_name(name, field=field)
        except OperatorError as error:
            raise _invalid(error.message, field, hint=error.hint) from error
    for number, name in enumerate(profiles):
        if name in profiles[:number]:
            raise _invalid(f"Two variants have the profile {name!r}.", f"variant[{number}].profile")
    if release.parent == release.release:
        raise _invalid("A release cannot be its own parent.", "parent")


def _inspect(path: Path, field: str, table: _VariantTable, where: str) -> ModelFacts:
    if table.runtime is not None and table.runtime not in BUILT_IN:
        if not table.inputs or not table.outputs:
            raise _invalid(
                f"Runtime {table.runtime!r} is not one of edgefleet, so its files cannot be read.",
                f"{where}.{'outputs' if table.inputs else 'inputs'}",
                hint='Name the tensors: inputs = [{ name = "x", datatype = "FP32", shape = '
                "[-1, 4] }], and outputs likewise.",
            )
        return ModelFacts(
            table.inputs, table.outputs, FormatVersions(0, 0), runtimes=(table.runtime,)
        )
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
        raise _invalid(
            f"Profile {table.profile!r} is not built in: set max_batch.", f"{field}.max_batch"
        )
    if memory_limit_mib is None:
        raise _invalid(
            f"Profile {table.profile!r} is not built in: set memory_limit_mib.",
            f"{field}.memory_limit_mib",
        )
    check_batch(facts, max_batch, f"{field}.max_batch")
    runtime = table.runtime or facts.runtimes[0]
    if runtime not in facts.runtimes:
        raise _invalid(
            f"{table.file!r} is a file for {' or '.join(facts.runtimes)}, not for {runtime}.",
            f"{field}.runtime",
        )
    inputs, outputs = facts.inputs, facts.outputs
    if table.tensors == "raw" and facts.raw is not None:
        inputs, outputs = facts.raw
    return Variant(
        profile=table.profile,
        runtime=runtime,
        precision=table.precision,
        artifact=artifact,
        inputs=inputs,
        outputs=outputs,
        max_batch=max_batch,
        memory_limit_mib=memory_limit_mib,
        min_runtime=facts.min_runtime,
    )


def check_batch(facts: ModelFacts, max_batch: int, field: str) -> None:
    """Check that each input begins with the batch: an open size, or ``max_batch``.

    Raises PublisherError ``release_file_invalid`` with the export option that mends it.
    """
    sizes = {spec.shape[0] for spec in facts.inputs}
    for spec in facts.inputs:
        if len(sizes) > 1 and spec.shape[0] != -1:
            raise _invalid(
                f"Input {spec.name!r} begins with {spec.shape[0]}, and not with the batch as the "
                "other inputs.",
                field,
                hint="A state or a setting must be inside of the model: export recurrent layers "
                "with batch_first=True and their state as a constant.",
            )
        if spec.shape[0] not in (-1, max_batch):
            raise _invalid(
                f"Input {spec.name!r} has the batch {spec.shape[0]}, max_batch is {max_batch}.",
                field,
                hint=f"Export with an open batch (PyTorch: dynamic_axes={{{spec.name!r}: "
                f"{{0: 'batch'}}}}; scikit-learn: FloatTensorType([None, ...])), or set max_batch "
                f"= {spec.shape[0]}.",
            )


_KINDS: Final[Mapping[Task, str]] = {
    "classification": "top1",
    "detection": "map",
    "segmentation": "iou",
    "regression": "elementwise",
    "embedding": "cosine",
    "text": "exact",
    "none": "elementwise",
}
_EXACT: Final = {"absolute": 1e-3, "relative": 1e-2}  # of a model without a task


def _comparison(file: _ReleaseFile, variant: Variant) -> Comparison | None:
    """The comparison of the golden set, with the defaults of the task.

    None for a classifier whose scores are the first of numeric outputs: every agent has that one.
    """
    given = {
        name: value
        for name, value in msgspec.structs.asdict(file.compare).items()
        if value is not None
    }
    kind = str(given.pop("kind", None) or _KINDS[file.task])
    if kind == "top1" and not given:
        output = file.quality.output if file.quality else variant.outputs[0].name
        numeric = all(spec.datatype != "BYTES" for spec in (*variant.inputs, *variant.outputs))
        if numeric and output == variant.outputs[0].name:
            return None
        return Top1(output=output)
    tag = next(one for one in get_args(Comparison) if one.__struct_config__.tag == kind)
    if unknown := sorted(given.keys() - set(tag.__struct_fields__)):
        raise _invalid(
            f"{unknown[0]!r} is no key of kind {kind!r}; those are "
            f"{', '.join(tag.__struct_fields__)}.",
            f"compare.{unknown[0]}",
        )
    try:
        made: Comparison = msgspec.convert(
            {"kind": kind, **_defaults(kind, file.task, variant), **given}, tag
        )
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `")
        field = at.rstrip("`").removeprefix("$")
        raise _invalid(f"For kind {kind!r}: {message}.", f"compare{field}") from error
    return made


def _defaults(kind: str, task: Task, variant: Variant) -> dict[str, object]:
    first = variant.outputs[0]
    match kind:
        case "map":
            return {"boxes": first.name}
        case "iou":
            is_scores = first.datatype in FLOATS
            return {"output": first.name, "class_axis": 1 if is_scores else -1}
        case "cosine":
            return {"output": first.name, "least": 0.99}
        case "top1":
            return {"output": first.name}
        case _:
            outputs = tuple(spec.name for spec in variant.outputs)
            exact = _EXACT if kind == "elementwise" and task == "none" else {}
            return {"outputs": outputs, **exact}


def _check_rules(manifest: ReleaseManifest, file: _ReleaseFile) -> None:
    """Check the rules that the hub checks, too, with the fields of release.toml."""
    if file.task == "classification" and file.quality is None:
        raise _invalid(
            "Object missing required field `quality`.",
            hint="Add the table [quality] with the output of class scores, or set the task.",
        )
    try:
        check_rules(manifest)
    except PublisherError as error:
        field = (error.field or "").replace("variants[", "variant[")
        field = field.replace("golden.comparison", "compare")
        message = error.message.replace("variants[", "variant[")
        if name := file.classes.get(field.removeprefix("classes.")):
            message = f"{name}: {message}"
        raise _invalid(message, field, hint=error.hint) from error


def _invalid(message: str, field: str | None = None, *, hint: str | None = None) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field or None, hint=hint)
