"""Makes a release folder from a model file and samples.

The golden set gets the samples, the right answers and the answers of the model. Its limits are set
by what the model does on the samples, with a margin. A model that is no better than a constant
answer is refused: its golden set could not tell it from a broken one.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import file_sha256
from edgefleet.optimize.profiles import PROFILES
from edgefleet.optimize.release_folder import RELEASE_FILE, BuiltRelease, build_release, check_batch
from edgefleet.optimize.samples import Samples, cast, read_samples
from edgefleet.protocol.release import (
    FLOATS,
    Artifact,
    Precision,
    Task,
    TensorSpec,
    Variant,
    fixed_batch,
)
from edgefleet.protocol.serving import ProveResult
from edgefleet.serving.model_file import ModelFacts, inspect_model

Arrays = dict[str, NDArray[Any]]

_ONNX_FILE: Final = "model.onnx"
_TFLITE_FILE: Final = "model.tflite"
_CLASS_FILE: Final = "classes.txt"
GOLDEN_FILE: Final = "golden.npz"
_MARGIN: Final = 0.05  # of accuracy, below that of the model on the samples
AGREEMENT: Final = 0.98
_LEAST_AGREEMENT: Final = 0.9  # of the exported file with the training framework
_TOLERANCE: Final = (0.95, 1.25)  # the quantile of a regressor's errors, and a factor on it
_NEED_TRUTH: Final = ("classification", "detection", "segmentation", "regression")
_MEMORY_MIB: Final = 1024  # of a profile that is not built in
_BATCH: Final = 8  # likewise


@dataclass(frozen=True, slots=True)
class Wanted:
    """The publisher's wishes. None and empty values are found from the model and the samples.

    ``compare`` has keys of the table [compare] in release.toml.
    """

    model: str
    release: str = "1"
    task: Task | None = None
    output: str = ""  # the output that is compared
    profiles: tuple[str, ...] = ("generic_x86",)
    precision: Precision = "fp32"
    max_batch: int | None = None
    memory_limit_mib: int | None = None
    compare: Mapping[str, object] = field(default_factory=dict)
    cases: int = 500
    classes: tuple[str, ...] = ()  # the names of its classes, in the order of the scores


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a model in another process.

    ``answers`` gives the answers to the inputs in a golden set, ``prove`` the proof of a variant of
    a release.
    """

    answers: Callable[[Variant, Path, Path], Arrays]
    prove: Callable[[BuiltRelease, Variant], ProveResult]


@dataclass(frozen=True, slots=True)
class VariantFile:
    """A variant of the release: a file in the folder. None: the default of the profile."""

    profile: str
    precision: Precision
    file: str
    max_batch: int | None
    memory_limit_mib: int | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A release folder in the making. ``output`` is the one that is compared."""

    wanted: Wanted
    facts: ModelFacts
    task: Task
    output: TensorSpec
    max_batch: int | None

    @property
    def file(self) -> str:
        """The name of the model in the folder."""
        return _ONNX_FILE if "onnx" in self.facts.runtimes else _TFLITE_FILE

    @property
    def is_classifier(self) -> bool:
        return self.task == "classification"


def new_release(
    folder: Path, file: Path, samples: Path, wanted: Wanted, runner: Runner
) -> tuple[BuiltRelease, ProveResult]:
    """Write the release folder. Returns the release, and its proof on this machine.

    Raises PublisherError: the errors of ``inspect_model``, ``golden_mismatch``,
    ``release_file_invalid``, ``golden_failed`` for a model that is no better than a constant.
    """
    if folder.exists() and any(folder.iterdir()):
        raise _invalid(f"{folder} is not empty.", "folder", hint="Name a new folder.")
    facts = inspect_model(file)
    read = read_samples(samples, facts, wanted.cases)
    draft = draft_of(facts, read, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(file, folder / draft.file)
        answers = {f"output.{name}": array for name, array in read.outputs.items()}
        if not answers:
            _save(folder / GOLDEN_FILE, _inputs(read))
            variant = _variant(draft, folder / draft.file)
            answers = runner.answers(variant, folder / draft.file, folder / GOLDEN_FILE)
        return fill_folder(folder, draft, read, answers, _variants(draft), runner=runner)
    except BaseException:
        for name in (draft.file, GOLDEN_FILE, RELEASE_FILE, _CLASS_FILE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        raise


def class_scores(facts: ModelFacts) -> list[TensorSpec]:
    """The outputs that may have class scores: floats of shape [batch, classes]."""
    return [
        spec
        for spec in facts.outputs
        if spec.datatype in FLOATS and len(spec.shape) == 2 and spec.shape[1] != 1
    ]


def draft_of(facts: ModelFacts, samples: Samples, wanted: Wanted) -> Draft:
    """The task and the output that is compared, where the wishes do not say them.

    Raises PublisherError ``release_file_invalid``, ``golden_mismatch``.
    """
    scores = class_scores(facts)
    task = wanted.task or _task(samples, scores)
    named = {spec.name: spec for spec in facts.outputs}
    if wanted.output and wanted.output not in named:
        known = ", ".join(named)
        raise _invalid(f"The model has no output {wanted.output!r}, but {known}.", "output")
    first = scores[0] if task == "classification" and scores else facts.outputs[0]
    if task in _NEED_TRUTH and samples.truth is None and not samples.truths:
        raise PublisherError(
            "golden_mismatch",
            f"The samples have no right answers. Nothing else proves a model for {task}.",
            field="samples",
            hint="Add them: numpy.savez(file, X=inputs, y=right_answers).",
        )
    max_batch = wanted.max_batch or fixed_batch(facts.inputs)
    check_batch(facts, max_batch or -1, "max_batch")
    return Draft(wanted, facts, task, named.get(wanted.output, first), max_batch)


def _task(samples: Samples, scores: list[TensorSpec]) -> Task:
    """The task, where the right answers say it: class numbers, or values."""
    if samples.truth is not None and samples.truth.size == len(samples.truth):
        if scores and samples.truth.dtype.kind in "iu":
            return "classification"
        if not scores and samples.truth.dtype.kind in "fiu":
            return "regression"
    raise _invalid(
        "Neither the model nor the samples say what the model does.",
        "task",
        hint="Say it with --task: classification, detection, segmentation, regression, embedding, "
        "text or none.",
    )


def fill_folder(
    folder: Path,
    draft: Draft,
    samples: Samples,
    answers: Arrays,
    variants: Sequence[VariantFile],
    *,
    runner: Runner,
    hard: bool = False,
) -> tuple[BuiltRelease, ProveResult]:
    """Write the golden set and release.toml beside the files of the variants.

    ``hard``: the samples were chosen because they are hard, so their accuracy says nothing of the
    model.
    ``answers`` are the reference outputs, as ``output.<name>``. Returns the release and the worst
    proof: its limits hold for every variant. Raises the errors of ``new_release``.
    """
    truth = truth_of(draft, samples)
    _save(folder / GOLDEN_FILE, {**_inputs(samples), **answers, **truth})
    made = answers[f"output.{draft.output.name}"]
    if not hard:
        check_better_than_constant(draft, made, truth)
    tables = _tables(draft, made, truth)
    if draft.wanted.classes:
        text = "".join(f"{name}\n" for name in draft.wanted.classes)
        (folder / _CLASS_FILE).write_text(text, encoding="utf-8")
        tables["classes"] = {draft.output.name: _CLASS_FILE}
    _write(folder, draft, variants, tables, accuracy=0.0, agreement=0.0)
    proof = _worst(build_release(folder, created_at=0.0), runner)
    accuracy = 0.0 if proof.accuracy is None else _floor(proof.accuracy - _MARGIN)
    if proof.accuracy is not None and accuracy <= 0 and not hard:
        raise _unproved(f"The accuracy of the model on the samples is {proof.accuracy:.4f}.")
    if proof.agreement < _LEAST_AGREEMENT:
        raise _unproved(
            f"Its answers agree with the outputs in the samples in {proof.agreement:.1%}.",
            hint="The outputs in the samples are not those of this file: export the model again.",
        )
    agreement = min(AGREEMENT, _floor(proof.agreement))
    _write(folder, draft, variants, tables, accuracy=accuracy, agreement=agreement)
    return build_release(folder, created_at=0.0), proof


def _worst(built: BuiltRelease, runner: Runner) -> ProveResult:
    """The proof of the first variant, with the least accuracy and agreement of all variants.

    Variants that share a file and a batch have one proof.
    """
    files = {(one.artifact.sha256, one.max_batch): one for one in built.manifest.variants}
    proofs = [runner.prove(built, one) for one in files.values()]
    accuracies = [one.accuracy for one in proofs if one.accuracy is not None]
    return replace(
        proofs[0],
        accuracy=min(accuracies, default=None),
        agreement=min(one.agreement for one in proofs),
    )


def _inputs(samples: Samples) -> Arrays:
    return {f"input.{name}": array for name, array in samples.inputs.items()}


def _variants(draft: Draft) -> list[VariantFile]:
    wanted, found = draft.wanted, []
    for profile in wanted.profiles:
        known = profile in PROFILES
        batch = draft.max_batch or (None if known else _BATCH)
        memory = wanted.memory_limit_mib or (None if known else _MEMORY_MIB)
        found.append(VariantFile(profile, wanted.precision, draft.file, batch, memory))
    return found


def _variant(draft: Draft, model: Path) -> Variant:
    """A variant with which the model is asked on this machine."""
    return Variant(
        profile=draft.wanted.profiles[0],
        runtime=draft.facts.runtimes[0],
        precision=draft.wanted.precision,
        artifact=Artifact(sha256=file_sha256(model), size_bytes=model.stat().st_size),
        inputs=draft.facts.inputs,
        outputs=draft.facts.outputs,
        max_batch=draft.max_batch or 1,
        memory_limit_mib=_MEMORY_MIB,
    )


def truth_of(draft: Draft, samples: Samples) -> Arrays:
    """The right answers, as the golden set has them. Raises PublisherError ``golden_mismatch``."""
    found = {f"truth.{name}": array for name, array in samples.truths.items()}
    truth = samples.truth
    if truth is None:
        return found
    name = f"truth.{draft.output.name}"
    match draft.task:
        case "classification":
            if truth.dtype.kind not in "iu" or truth.size != len(truth):
                raise PublisherError(
                    "golden_mismatch",
                    f"The classes are {truth.dtype} of shape {truth.shape}; one whole number per "
                    "sample is needed.",
                    field="y",
                    hint="Number the classes in the order of the scores. For scikit-learn: "
                    "y = numpy.searchsorted(model.classes_, y).",
                )
            return {"label": truth.reshape(-1).astype(np.int64)}
        case "segmentation":
            return {**found, name: truth.astype(np.int64)}
        case "detection":
            return {**found, name: truth.astype(np.float32)}
        case _:
            return {**found, name: cast(truth, draft.output, "y")}


def check_better_than_constant(draft: Draft, made: NDArray[Any], truth: Arrays) -> None:
    """Raises PublisherError ``golden_failed`` if one answer for all samples were as good."""
    if draft.is_classifier:
        labels = truth["label"]
        if made.ndim != 2:
            return
        right = float(np.mean(made.argmax(axis=1) == labels))
        values, counts = np.unique(labels, return_counts=True)
        best = float(counts.max() / len(labels))
        if right <= best:
            raise _unproved(
                f"{right:.1%} of its answers are right, and {best:.1%} would be if it always "
                f"answered {values[counts.argmax()]}.",
                hint="Check that the samples are scaled as in the training, that the labels number "
                "the classes in the order of the scores, and that there are several classes.",
            )
    elif draft.task == "regression" and (name := f"truth.{draft.output.name}") in truth:
        wanted = truth[name].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            error = float(np.mean(np.abs(made.astype(np.float64) - wanted)))
        middle = float(np.median(wanted))
        constant = float(np.mean(np.abs(wanted - middle)))
        if not error < constant:
            raise _unproved(
                f"Its mean error is {error:.4g}, and it would be {constant:.4g} if it always "
                f"answered {middle:.4g}.",
                hint="Check that the samples and the right answers are scaled as in the training.",
            )


def _tables(draft: Draft, made: NDArray[Any], truth: Arrays) -> dict[str, Mapping[str, object]]:
    """The tables [quality] or [compare] of release.toml."""
    if draft.is_classifier:
        kind = "probabilities" if _are_probabilities(made) else "logits"
        return {"quality": {"output": draft.output.name, "scores": kind}}
    compare: dict[str, object] = {}
    if draft.wanted.output:
        several = draft.task in ("regression", "text", "none")
        name = draft.output.name
        compare = {"outputs": [name]} if several else {"output": name}
    if draft.task == "detection":
        compare = {"boxes": draft.output.name}
    if draft.task == "regression":
        compare |= {"outputs": [draft.output.name], "relative": 0.0}
        compare["absolute"] = _tolerance(made, truth[f"truth.{draft.output.name}"])
    return {"compare": compare | dict(draft.wanted.compare)}


def _tolerance(made: NDArray[Any], truth: NDArray[Any]) -> float:
    """An error that few answers exceed, with two digits."""
    quantile, factor = _TOLERANCE
    errors = np.abs(made.astype(np.float64) - truth.astype(np.float64))
    limit = factor * float(np.quantile(errors.reshape(len(errors), -1).max(axis=1), quantile))
    return float(f"{limit:.1e}") if limit else 1e-6


def _are_probabilities(scores: NDArray[Any]) -> bool:
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1, atol=1e-3))


def _write(
    folder: Path,
    draft: Draft,
    variants: Sequence[VariantFile],
    tables: Mapping[str, Mapping[str, object]],
    *,
    accuracy: float,
    agreement: float,
) -> None:
    wanted = draft.wanted
    top = {"model": wanted.model, "release": wanted.release, "task": draft.task}
    golden = {"file": GOLDEN_FILE, "min_accuracy": accuracy, "min_agreement": agreement}
    lines = [*_lines(top), "", "[golden]", *_lines(golden)]
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *_lines(table)]
    for one in variants:
        variant = {"profile": one.profile, "precision": one.precision, "file": one.file}
        more = {"max_batch": one.max_batch, "memory_limit_mib": one.memory_limit_mib}
        lines += ["", "[[variant]]", *_lines(variant)]
        lines += _lines({key: value for key, value in more.items() if value is not None})
    (folder / RELEASE_FILE).write_text("\n".join(lines) + "\n")


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


def _save(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _floor(share: float) -> float:
    return max(0.0, math.floor(share * 100 + 1e-9) / 100)


def _unproved(message: str, *, hint: str | None = None) -> PublisherError:
    return PublisherError(
        "golden_failed",
        f"The samples do not prove the model. {message}",
        field="samples",
        hint=hint or "Check that the samples are scaled as in the training.",
    )


def _invalid(message: str, field: str, *, hint: str | None = None) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field, hint=hint)
