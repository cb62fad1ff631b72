"""``edgefleet model compare``: two model files, or two release folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import DURATION, FILE, percent, size

if TYPE_CHECKING:
    from edgefleet.optimize.comparison.compare import FileComparison
    from edgefleet.optimize.comparison.costs import CostComparison, TimesFaster
    from edgefleet.optimize.comparison.report import CompareReport
    from edgefleet.optimize.release_folder import BuiltRelease
    from edgefleet.protocol.release import Variant


Pair = tuple[str, Path, Path, "Variant | None", "Variant | None"]


@verb(
    "compare",
    hub=False,
    examples=(
        "edgefleet model compare fp32.onnx int8.onnx --samples digits.npz --measure 20s",
        "edgefleet model compare digits-1 digits-2 --json",
    ),
)
@click.argument("before", type=click.Path(path_type=Path, exists=True))
@click.argument("after", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--samples",
    type=FILE,
    help="Inputs X, and right answers y if there are any, as numpy.savez writes them.",
)
@click.option(
    "--cases",
    type=click.IntRange(1),
    default=2_000,
    show_default=True,
    help="Samples that are used, at most.",
)
@click.option(
    "--measure",
    "measure_s",
    type=DURATION,
    help="Also measure latency on the samples, for about this time, and memory. Such as 20s.",
)
@pass_invocation
def compare(
    invocation: Invocation,
    before: Path,
    after: Path,
    *,
    samples: Path | None,
    cases: int,
    measure_s: float | None,
) -> None:
    """Compare two model files, or the variants of two release folders.

    Shows sizes, the transfer and the estimated difference for a device that has BEFORE, operators,
    changes that clients notice, and how far the weights are apart. With samples both models run in
    the runtime of this machine: agreement, and the metric of both with a paired interval. With
    --measure both also run in turns in one process: how many times faster, with a paired interval.
    """
    if measure_s is not None and samples is None:
        raise OperatorError(
            "setting_invalid",
            "Latency is measured on real inputs.",
            field="measure",
            hint="Give --samples FILE.npz, too.",
        )
    report = _folders(before, after) if before.is_dir() and after.is_dir() else None
    if report is None and (before.is_dir() or after.is_dir()):
        raise OperatorError(
            "setting_invalid",
            "A file and a folder cannot be compared.",
            field="after",
            hint="Name two model files, or two release folders.",
        )
    compared, pairs = report or _files(before, after)
    if samples is not None:
        compared = _with_samples(compared, pairs, samples, cases, measure_s)
    invocation.screen.answer(compared, _lines(compared))


def _files(before: Path, after: Path) -> tuple[CompareReport, list[Pair]]:
    from edgefleet.optimize.comparison.compare import compare_files
    from edgefleet.optimize.comparison.report import CompareReport

    report = CompareReport(
        before=str(before), after=str(after), files=(compare_files(before, after),)
    )
    return report, [("", before, after, None, None)]


def _folders(before: Path, after: Path) -> tuple[CompareReport, list[Pair]]:
    from edgefleet.optimize.comparison.compare import compare_files
    from edgefleet.optimize.comparison.report import CompareReport
    from edgefleet.optimize.release_folder import build_release
    from edgefleet.protocol.interface import interface_changes

    old, new = (build_release(one, created_at=0.0) for one in (before, after))
    mine, theirs = _variants(old), _variants(new)
    pairs: list[Pair] = [
        (name, old.files[one.artifact.sha256], new.files[theirs[name].artifact.sha256], one,
         theirs[name])
        for name, one in mine.items()
        if name in theirs
    ]  # fmt: skip
    report = CompareReport(
        before=f"{old.manifest.model} {old.manifest.release}",
        after=f"{new.manifest.model} {new.manifest.release}",
        files=tuple(compare_files(one, other, name) for name, one, other, _, _ in pairs),
        interface=interface_changes(old.manifest, new.manifest),
        profiles_only_before=tuple(name for name in mine if name not in theirs),
        profiles_only_after=tuple(name for name in theirs if name not in mine),
    )
    return report, pairs


def _variants(built: BuiltRelease) -> dict[str, Variant]:
    return {one.profile: one for one in built.manifest.variants}


def _with_samples(
    report: CompareReport, pairs: list[Pair], samples: Path, cases: int, measure_s: float | None
) -> CompareReport:
    from msgspec.structs import replace

    from edgefleet.optimize.comparison.answers import Side, compare_answers
    from edgefleet.optimize.comparison.compare import file_variant
    from edgefleet.optimize.comparison.costs import compare_costs, why_not_measured
    from edgefleet.optimize.run_model import answers
    from edgefleet.optimize.samples import read_samples
    from edgefleet.serving.model_file import inspect_model

    files: list[FileComparison] = []
    for compared, (_, before, after, old, new) in zip(report.files, pairs, strict=True):
        sides = [
            Side(path, variant or file_variant(path, inspect_model(path)))
            for path, variant in ((before, old), (after, new))
        ]
        found = compare_answers(sides[0], sides[1], samples, answers, cases=cases)
        text = "" if measure_s is None else why_not_measured(sides[0], sides[1])
        costs = None
        if measure_s is not None and not text:
            inputs = read_samples(samples, inspect_model(before), cases).inputs
            costs = compare_costs(sides[0], sides[1], inputs, seconds=measure_s)
        files.append(replace(compared, samples=found, costs=costs, costs_text=text))
    return replace(report, files=tuple(files))


def _lines(report: CompareReport) -> Iterator[str]:
    yield f"{report.before} -> {report.after}"
    for name, profiles in (
        ("only before", report.profiles_only_before),
        ("only after", report.profiles_only_after),
    ):
        if profiles:
            yield f"{name}: {', '.join(profiles)}"
    yield from (f"interface: {change}" for change in report.interface)
    for one in report.files:
        yield ""
        if one.profile:
            yield one.profile
        yield from facts(_rows(one))
        if one.operators:
            yield ""
            rows = [(change.operator, change.before, change.after) for change in one.operators]
            yield from table(("operator", "before", "after"), rows)


def _rows(one: FileComparison) -> list[tuple[str, object]]:
    before, after = one.before, one.after
    rows: list[tuple[str, object]] = [
        ("size", _change(before.size_bytes, after.size_bytes)),
        ("compressed", _change(before.compressed_bytes, after.compressed_bytes)),
        ("difference", f"{size(one.delta_bytes)} for a device that has the first, by estimate"),
        ("precision", f"{before.precision} -> {after.precision}"),
        ("parameters", f"{before.parameters:,} -> {after.parameters:,}"),
        ("interface", " ".join(one.interface) or "as before"),
        (
            "weights",
            "none could be compared"
            if one.median_distance is None
            else f"{one.median_distance:.2e} apart (median of {one.compared_weights}, relative)",
        ),
    ]
    if found := one.samples:
        rows.append(("agreement", f"{percent(found.agreement)} of {counted(found.cases, 'case')}"))
        if proof := found.accuracy:
            interval = f"{proof.difference.low:+.4f} to {proof.difference.high:+.4f}"
            rows.append(
                (
                    found.metric,
                    (
                        f"{proof.baseline:.4f} -> {proof.candidate:.4f}, difference {interval} "
                        f"({percent(proof.difference.level)} interval)"
                    ),
                )
            )
            rows.append(("shown", found.text))
    if one.costs_text:
        rows.append(("latency", f"not measured: {one.costs_text}"))
    return [*rows, *cost_rows(one.costs)] if one.costs else rows


def cost_rows(costs: CostComparison) -> list[tuple[str, object]]:
    """Latency and memory of both, each with how sure the difference is."""
    counts = (
        f"{costs.before.runs:,} rounds, batch {costs.batch}, {counted(costs.threads, 'thread')}"
    )
    rows: list[tuple[str, object]] = [
        (name, f"{before * 1e3:.3g} ms -> {after * 1e3:.3g} ms, {_faster(times)}")
        for name, before, after, times in (
            ("p50", costs.before.p50_s, costs.after.p50_s, costs.by_p50),
            ("p10", costs.before.p10_s, costs.after.p10_s, costs.by_p10),
        )
    ]
    memory = _change(costs.memory_before_bytes, costs.memory_after_bytes)
    return [*rows, ("measured", counts), ("memory", memory)]


def _faster(times: TimesFaster) -> str:
    interval = f"95 % interval {times.low:.2f} to {times.high:.2f}"
    shown = " is not shown to differ" if times.low <= 1 <= times.high else ""
    return f"{times.times:.2f} times the speed ({interval}){shown}"


def _change(before: int, after: int) -> str:
    times = before / max(1, after)
    words = f"{times:.2f} times smaller" if times >= 1 else f"{1 / times:.2f} times larger"
    return f"{size(before)} -> {size(after)}, {words if before != after else 'as before'}"
