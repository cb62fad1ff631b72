"""Writes what an optimisation found beside its release: the lineage, and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgefleet.optimize.lineage import (
    LINEAGE_FILE,
    MadeVariant,
    Making,
    lineage,
    write_lineage,
)
from edgefleet.optimize.outcome import ProfileOutcome
from edgefleet.optimize.release_folder import RELEASE_FILE, build_release
from edgefleet.optimize.report.page import write_report
from edgefleet.optimize.report.report import ProfileReport, Report

REPORT_FILE: Final = "report.html"


def write_evidence(
    folder: Path,
    making: Making,
    profiles: Sequence[ProfileOutcome],
    metric: str,
    keep: float,
    *,
    labels: tuple[int, ...] = (),
) -> None:
    """Write ``lineage.json``, named in release.toml, and ``report.html`` into a release folder.

    ``labels`` are the classes of the evaluation cases, where they have one.
    Raises the errors of ``build_release`` if the folder is not that of the outcome.
    """
    outcomes = {one.profile: one for one in profiles}
    built = build_release(folder, created_at=0.0)
    names = {one.profile: one.artifact.sha256 for one in built.manifest.variants}
    made = [
        MadeVariant(
            profile=name,
            file=built.files[sha256].name,
            sha256=sha256,
            recipe=chosen.candidate.recipe,
            judgement=chosen,
        )
        for name, sha256 in names.items()
        if (chosen := outcomes[name].chosen) is not None and chosen.candidate is not None
    ]
    wishes = {"metric": metric, "keep": keep, **making.wishes}
    write_lineage(folder, lineage(made, replace(making, wishes=wishes)))
    toml = folder / RELEASE_FILE
    toml.write_text(f'lineage = "{LINEAGE_FILE}"\n{toml.read_text()}')
    write_report(folder / REPORT_FILE, whole_report(making, profiles, metric, keep, labels))


def whole_report(
    making: Making,
    profiles: Sequence[ProfileOutcome],
    metric: str,
    keep: float,
    labels: tuple[int, ...] = (),
) -> Report:
    """The report of all profiles, also where none has a variant."""
    return Report(
        making.model,
        making.release,
        metric,
        tuple(profile_report(one, keep, labels) for one in profiles),
        _facts(making),
    )


def profile_report(
    outcome: ProfileOutcome, keep: float, labels: tuple[int, ...] = ()
) -> ProfileReport:
    """The report of one profile."""
    by_recipe = {one.recipe: one.judgement.candidate for one in outcome.tried}
    chosen = outcome.chosen.candidate if outcome.chosen else None
    found = [by_recipe.get(recipe) for recipe in outcome.front]
    return ProfileReport(
        profile=outcome.profile,
        baseline=outcome.baseline,
        judgements=tuple(one.judgement for one in outcome.tried),
        chosen=chosen.sha256 if chosen else None,
        front=tuple(one.sha256 for one in found if one is not None),
        text=outcome.text,
        by_bench=outcome.by_bench.name if outcome.by_bench else "",
        mapped=outcome.mapped,
        labels=labels,
        sensitivity={name: _error(db) for name, db in outcome.sensitivity_db.items()},
        keep=keep,
    )


def _error(decibels: float) -> float:
    """The error over the signal, as amplitudes; at most 10."""
    return float(min(10.0, 10 ** (-decibels / 20)))


def _facts(making: Making) -> Mapping[str, str]:
    shown = {"source": making.source.sha256[:16]}
    shown |= {f"{purpose} data": digest[:16] for purpose, digest in making.data.items()}
    shown["tools"] = ", ".join(f"{name} {version}" for name, version in making.tools.items())
    shown["machine"] = ", ".join(
        " ".join(map(str, value)) if isinstance(value, list) else f"{name} {value}"
        for name, value in making.machine.items()
    )
    return shown
