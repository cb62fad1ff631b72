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

if TYPE_CHECKING:
    from edgefleet.optimize.inspection.inspect import Inspection
    from edgefleet.optimize.inspection.report import ModelReport
    from edgefleet.protocol.release import ReleaseManifest, TensorSpec


@verb(
    "inspect",
    hub=False,
    examples=(
        "edgefleet model inspect wine.onnx",
        "edgefleet model inspect wine.onnx --batch 8",
        "edgefleet model inspect releases/digits/release-1 --json",
    ),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The batch of the memory estimate, if the model leaves it open.",
)
@pass_invocation
def inspect(invocation: Invocation, path: Path, batch: int) -> None:
    """Show what is in a model file or a release folder.

    Of a file: operators, parameters, an estimate of memory, and which built-in profiles can run it
    or why not. The model is read and not run. A file that no device could serve is refused with the
    export option that mends it.
    """
    from edgefleet.optimize.inspection.inspect import inspect_file
    from edgefleet.optimize.release_folder import build_release

    if path.is_dir():
        manifest = build_release(path, created_at=0.0).manifest
        invocation.screen.answer(manifest, _folder_lines(manifest))
        return
    report = _report(path, inspect_file(path, batch))
    invocation.screen.answer(report, _file_lines(report))


def _report(path: Path, found: Inspection) -> ModelReport:
    from edgefleet.optimize.inspection.report import ModelReport
    from edgefleet.optimize.new_release import class_scores

    model = found.facts
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
        operators=found.operators,
        parameters=found.parameters,
        precision=found.precision,
        weights_bytes=found.weights_bytes,
        memory=found.memory,
        profiles=found.profiles,
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
    rows += _size_rows(report)
    return [
        *facts(rows),
        "",
        *_tensors(report.inputs, report.outputs),
        "",
        *_operators(report),
        "",
        *_profiles(report),
    ]


def _size_rows(report: ModelReport) -> list[tuple[str, str]]:
    """Parameters, and the estimate of memory with its formula."""
    weights = ", ".join(f"{size(count)} {kind}" for kind, count in report.weights_bytes.items())
    rows = [
        ("parameters", f"{report.parameters:,}, mostly {report.precision} ({weights or 'none'})")
    ]
    if estimate := report.memory:
        least = "at least " if estimate.unknown_tensors else ""
        total = f"{least}{size(estimate.total_bytes)} at batch {estimate.batch}, by estimate"
        live = f"largest live activations (at {estimate.peak_at or 'no operator'})"
        parts = (
            f"{size(estimate.weights_bytes)} weights + {size(estimate.activations_bytes)} {live}"
        )
        rows.append(("memory", f"{total}: {parts}"))
    return rows


def _operators(report: ModelReport) -> list[str]:
    rows = [
        (one.operator, one.count, f"{one.parameters:,}", str(list(one.largest_output)))
        for one in report.operators
    ]
    return table(("operator", "count", "parameters", "largest output"), rows)


def _profiles(report: ModelReport) -> list[str]:
    rows = [
        (
            one.profile,
            "yes" if one.runs else "no",
            one.runtime,
            size(one.memory.total_bytes),
            one.memory.batch,
            " ".join((*one.why_not, *one.notes)),
        )
        for one in report.profiles
    ]
    return table(("profile", "runs", "runtime", "memory", "batch", "why"), rows)


def _folder_lines(manifest: ReleaseManifest) -> list[str]:
    from edgefleet.protocol.class_names import names_text
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
        *([("classes", names_text(manifest))] if manifest.classes else []),
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
