"""``edgefleet model inspect``: what is in a model file or a release folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.base.texts import counted
from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import percent, size
from edgefleet.protocol.release import TensorSpec
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.protocol.release import ReleaseManifest
    from edgefleet.serving.model_file import ModelFacts


class ModelReport(Wire, frozen=True, kw_only=True):
    """A model file. ``min_runtime`` is empty if no known version of the runtime loads it.

    ``runtimes`` can load the file. ``ir_version`` of a TFLite file is the version of its schema.
    ``raw_inputs`` and ``raw_outputs`` are the integers of a quantised TFLite file, which a device
    also serves with ``tensors = "raw"``.
    """

    file: str
    size_bytes: int
    producer: str
    ir_version: int
    opset: int
    ml_opset: int
    min_runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    class_scores: tuple[str, ...]
    runtimes: tuple[str, ...] = ()
    raw_inputs: tuple[TensorSpec, ...] = ()
    raw_outputs: tuple[TensorSpec, ...] = ()


@verb(
    "inspect",
    hub=False,
    examples=(
        "edgefleet model inspect wine.onnx",
        "edgefleet model inspect releases/digits/release-1 --json",
    ),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@pass_invocation
def inspect(invocation: Invocation, path: Path) -> None:
    """Show what is in a model file or a release folder.

    The model is read and not run. A file that no device could serve is refused with the export
    option that mends it.
    """
    from edgefleet.optimize.release_folder import build_release
    from edgefleet.serving.model_file import inspect_model

    if path.is_dir():
        manifest = build_release(path, created_at=0.0).manifest
        invocation.screen.answer(manifest, _folder_lines(manifest))
        return
    report = _report(path, inspect_model(path))
    invocation.screen.answer(report, _file_lines(report))


def _report(path: Path, model: ModelFacts) -> ModelReport:
    from edgefleet.optimize.new_release import class_scores

    return ModelReport(
        file=str(path),
        size_bytes=path.stat().st_size,
        producer=model.producer,
        ir_version=model.versions.ir,
        opset=model.versions.opset,
        ml_opset=model.versions.ml_opset,
        min_runtime=model.min_runtime,
        inputs=model.inputs,
        outputs=model.outputs,
        class_scores=tuple(spec.name for spec in class_scores(model)),
        runtimes=model.runtimes,
        raw_inputs=model.raw[0] if model.raw else (),
        raw_outputs=model.raw[1] if model.raw else (),
    )


def _file_lines(report: ModelReport) -> list[str]:
    opsets = f"{report.opset}" + (f", ai.onnx.ml {report.ml_opset}" if report.ml_opset else "")
    rows = [
        ("file", report.file),
        ("size", size(report.size_bytes)),
        ("made by", report.producer),
        ("format", f"IR {report.ir_version}, opset {opsets}"),
        ("runtime", f"onnxruntime {report.min_runtime or 'newer than any known version'}"),
    ]
    if "onnx" not in report.runtimes:
        rows[-2:] = [
            ("format", f"TFLite, schema {report.ir_version}"),
            ("runtime", " or ".join(report.runtimes)),
        ]
    rows += [
        ("class scores", ", ".join(report.class_scores) or "none: not a classifier"),
    ]
    if report.raw_inputs:
        raw = {one.name: one.datatype for one in (*report.raw_inputs, *report.raw_outputs)}
        quantised = [
            f"{one.name} as {raw[one.name]}"
            for one in (*report.inputs, *report.outputs)
            if raw[one.name] != one.datatype
        ]
        rows.append(("quantised", f"{', '.join(quantised)}: the runtime converts"))
    return [*facts(rows), "", *_tensors(report.inputs, report.outputs)]


def _folder_lines(manifest: ReleaseManifest) -> list[str]:
    from edgefleet.protocol.comparisons import comparison_text
    from edgefleet.protocol.release import unjudged

    golden, first = manifest.golden, manifest.variants[0]
    rows = [
        ("release", f"{manifest.model} {manifest.release}"),
        ("task", manifest.task),
        (
            "golden set",
            f"{counted(golden.cases, 'case')}, compared by {comparison_text(golden.comparison)}",
        ),
        ("accuracy", f"at least {percent(golden.min_accuracy)}"),
        ("agreement", f"at least {percent(golden.min_agreement)}"),
        *([("unjudged", unjudged(manifest))] if manifest.quality is None else []),
    ]
    head = ("profile", "precision", "size", "max batch", "memory", "runtime")
    variants = [
        (
            one.profile,
            one.precision,
            size(one.artifact.size_bytes),
            one.max_batch,
            f"{one.memory_limit_mib} MiB",
            one.min_runtime,
        )
        for one in manifest.variants
    ]
    tensors = _tensors(first.inputs, first.outputs)
    return [*facts(rows), "", *table(head, variants), "", *tensors]


def _tensors(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> list[str]:
    rows = [
        (side, spec.name, spec.datatype, str(list(spec.shape)))
        for side, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    return table(("", "tensor", "datatype", "shape"), rows)
