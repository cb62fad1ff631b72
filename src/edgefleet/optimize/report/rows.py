"""The candidates of a profile as rows: for the page and for a terminal."""

from typing import Final

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.pareto import transfer_bytes
from edgefleet.optimize.report.numbers import size_text, time_text
from edgefleet.optimize.report.report import ProfileReport

HEAD: Final = (
    "no", "recipe", "verdict", "size", "smaller", "transfer", "p50", "faster", "metric", "memory",
    "why",
)  # fmt: skip


def rows(profile: ProfileReport) -> list[tuple[str, ...]]:
    """The baseline as B, then each candidate that was built with its number, then the others."""
    found = [_row("B", "baseline", profile.baseline, (1.0, 1.0), "")]
    number = 0
    for one in profile.judgements:
        if one.candidate is None:
            found.append(("", "-", _verdict(one, profile), *["-"] * 7, one.text))
            continue
        number += 1
        verdict_ = _verdict(one, profile)
        found.append(
            _row(str(number), verdict_, one.candidate, (one.smaller, one.faster), one.text)
        )
    return found


def _is_chosen(one: Judgement, profile: ProfileReport) -> bool:
    return one.candidate is not None and one.candidate.sha256 == profile.chosen


def _verdict(one: Judgement, profile: ProfileReport) -> str:
    if one.refused is not None:
        return f"refused: {one.refused.value}"
    return "chosen" if _is_chosen(one, profile) else "qualifies"


def _row(
    number: str, verdict_: str, one: Measurement, gains: tuple[float, float], text: str
) -> tuple[str, ...]:
    smaller, faster = gains
    return (
        number,
        one.recipe.name,
        verdict_,
        size_text(one.size_bytes),
        f"{smaller:.2f}x",
        size_text(transfer_bytes(one)),
        time_text(one.latency.p50_s),
        f"{faster:.2f}x",
        f"{one.value:.4f}",
        size_text(one.peak_memory_bytes),
        text,
    )
