"""The report of an optimisation: its figures, and that it is one safe file."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgefleet.optimize.recipe import Simplify, StaticInt8
from edgefleet.optimize.report.charts import (
    by_class,
    drops,
    latencies,
    losses,
    over_size,
    sensitivity,
)
from edgefleet.optimize.report.decisions import verdict
from edgefleet.optimize.report.numbers import Scale, size_text, time_text, wilson
from edgefleet.optimize.report.page import page, write_report
from edgefleet.optimize.report.report import ProfileReport
from edgefleet.optimize.report.rows import HEAD, rows
from edgefleet.optimize.report.terminal import plots
from edgefleet.optimize.report.waterfall import Drop, waterfall
from support.reports import BASELINE, INT8, judged, measured, report


def test_rows_have_the_figures_of_each_candidate() -> None:
    found = rows(report().profiles[0])
    assert all(len(row) == len(HEAD) for row in found)
    assert found[1][:10] == (
        "1", "onnx static_int8", "chosen", "10.8 MiB", "3.95x", "9.1 MiB", "1.17 ms", "4.33x",
        "0.9783", "21.1 MiB",
    )  # fmt: skip
    assert [row[2] for row in found] == [
        "baseline", "chosen", "qualifies", "refused: slower", "refused: accuracy_lost",
        "refused: not_built",
    ]  # fmt: skip
    assert found[-1][:2] == ("", "-")


def test_the_verdict_names_the_variant_or_says_why_there_is_none() -> None:
    good, bad = report().profiles
    assert verdict(good) == (
        "onnx static_int8 was chosen, because it has the greatest gain of the 2 that qualify: 10.8 "
        "MiB instead of 42.7 MiB, 1.17 ms instead of 5.07 ms. 99.8 % of the metric is kept."
    )
    assert verdict(bad) == "No variant qualifies, because none keeps 99 % of the metric."


def test_the_page_is_one_well_formed_file_without_scripts(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", report())
    text = (tmp_path / "report.html").read_text()
    assert text == page(report())
    assert not re.search(r"<script|src=|href=|url\(|@import|https?:", text)
    body = text.replace("<!doctype html>", "").replace('charset="utf-8">', 'charset="utf-8"/>')
    tree = ET.fromstring(body.replace('initial-scale=1">', 'initial-scale=1"/>'))
    pictures = list(tree.iter("svg"))
    assert len(pictures) == 8 + 5
    first = next(tree.iter("main"))[1]
    assert "".join(first.itertext()).startswith("generic_x86: onnx static_int8 was chosen, because")
    assert all(one.get("aria-label") for one in pictures)


def test_text_of_others_is_escaped() -> None:
    text = page(report())
    assert "The converter refuses &lt;If&gt;." in text
    assert "<If>" not in text


def test_better_and_cheaper_is_up_and_left() -> None:
    drawn = ET.fromstring(over_size(report().profiles[0]))
    circles = list(drawn.iter("circle"))
    at = [(float(one.attrib["cx"].rstrip("%")), float(one.attrib["cy"])) for one in circles]
    kinds = ["baseline", "refused", "refused", "good", "chosen"]
    assert [one.get("class") for one in circles] == kinds
    assert at[4][0] < at[3][0] < at[0][0], "10.8, 21.4 and 42.7 MiB"
    assert at[2][1] > at[4][1] > at[0][1], "85, 97.8 and 98 % from below"
    assert all(10 <= x <= 100 and 0 <= y <= 260 for x, y in at)


MIB = 1 << 20


def test_the_waterfall_goes_from_the_model_to_the_transfer() -> None:
    assert [(one.name, one.after) for one in waterfall(report().profiles[0])] == [
        ("the model as it was given", BASELINE.size_bytes),
        ("static_int8", INT8.size_bytes),
        ("compressed for the transfer", INT8.compressed_bytes),
        ("as a difference to what devices have", int(9.1 * MIB)),
    ]
    assert waterfall(report().profiles[1]) == ()
    assert drops(report().profiles[1]) is None


def test_a_step_that_was_a_candidate_of_its_own_has_its_own_row() -> None:
    both = measured(Simplify(), StaticInt8(), size=10.8, p50_ms=1.1, wrong=12)
    clean = measured(Simplify(), size=43.0, p50_ms=5.0, wrong=12)
    for tried, rows_ in (
        ((clean, both), [("simplify", clean), ("static_int8", both)]),
        ((both,), [("simplify+static_int8", both)]),
    ):
        judgements = tuple(judged(one, None, "") for one in tried)
        found = waterfall(ProfileReport("p", BASELINE, judgements, both.sha256))
        before = [BASELINE.size_bytes, *(one.size_bytes for _, one in rows_)]
        assert found[1:-1] == tuple(
            Drop(name, old, one.size_bytes) for (name, one), old in zip(rows_, before, strict=False)
        )


def test_a_decision_stands_beside_the_figure_that_led_to_it() -> None:
    profile = report().profiles[0]
    shown = {"slower": latencies(profile), "accuracy_lost": losses(profile) or ""}
    for reason, chart in shown.items():
        assert f"refused: {reason}" in chart
    assert "refused: accuracy_lost" not in shown["slower"]
    assert "5.87 ms (0.86x), p10 4.7 ms \u2013 refused: slower" in shown["slower"]


def test_the_plots_of_a_terminal_have_the_same_figures() -> None:
    lines = list(plots(report().profiles[0]))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 130
    (row,) = [line for line in lines if line.startswith("static_int8")]
    assert row.count("\u2588") == round(40 * INT8.size_bytes / BASELINE.size_bytes)
    assert row.endswith(" 10.8 MiB")
    (slow,) = [line for line in lines if line.startswith("3 dynamic_int8") and "ms" in line]
    assert slow.endswith("5.87 ms \u2013 refused: slower")
    assert "98.0% -> 97.3% of 150" in text
    assert "conv1" in text
    assert "1*" in text
    assert not any("Accuracy by class" in line for line in plots(report().profiles[1]))


def test_accuracy_by_class_needs_labels_of_all_cases() -> None:
    profile = report().profiles[0]
    drawn = by_class(profile)
    assert drawn is not None
    assert ">shirt<" in drawn
    assert "98.0% before, 97.3% now (of 150)" in drawn
    unlabelled = ProfileReport("p", BASELINE, profile.judgements, INT8.sha256)
    assert by_class(unlabelled) is None
    short = ProfileReport("p", BASELINE, profile.judgements, INT8.sha256, labels=(1, 2))
    assert by_class(short) is None


def test_plots_without_data_are_left_out() -> None:
    profile = ProfileReport("p", BASELINE, ())
    assert losses(profile) is None
    assert sensitivity(profile) is None
    assert "1 models" in over_size(profile)


@pytest.mark.parametrize(
    ("right", "cases", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (95, 100, 0.8883, 0.9785)],
)
def test_the_interval_of_a_share_is_that_of_wilson(
    right: int, cases: int, low: float, high: float
) -> None:
    assert wilson(right, cases) == pytest.approx((low, high), abs=1e-4)


def test_figures_have_units() -> None:
    assert [size_text(one) for one in (12, 1536, 11.33e6)] == ["12 B", "1.5 KiB", "10.8 MiB"]
    assert [time_text(one) for one in (4.2e-5, 0.00117, 2.5)] == ["42 us", "1.17 ms", "2.5 s"]


@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_inside_of_the_scale(log: bool) -> None:
    for values in ([3.0], [0.97, 0.98], [10.0, 45_000_000.0], [1e-5, 4e-5]):
        scale = Scale.of(values, log=log)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 6
        assert all(0 <= scale.at(one) <= 1 for one in [*ticks, *values])
