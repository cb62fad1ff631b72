"""The report as one HTML file: styles and pictures inside, no script, nothing from elsewhere."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgefleet.optimize.report.charts import (
    by_class,
    drops,
    latencies,
    losses,
    over_latency,
    over_size,
    sensitivity,
    sizes,
)
from edgefleet.optimize.report.decisions import verdict
from edgefleet.optimize.report.report import ProfileReport, Report
from edgefleet.optimize.report.rows import HEAD, rows
from edgefleet.optimize.report.svg import Markup, element, joined

_STYLE: Final = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #57606a;
  --line: #d0d7de; --good: #0b6bcb; --chosen: #116329; --refused: #6e7781; --bar: #9ec5f0;
  --limit: #b42318; --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1419; --text: #e6edf3; --soft: #9da7b3;
  --line: #30363d; --good: #58a6ff; --chosen: #3fb950; --refused: #8b949e; --bar: #1f4b7a;
  --limit: #ff8e80; --on: #0f1419; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
p { max-width: 48rem; }
.verdict { border-left: 4px solid var(--chosen); padding: .2rem 0 .2rem .8rem; font-size: 1.05rem; }
.verdict.none { border-color: var(--limit); } .soft { color: var(--soft); margin: 0 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.charts { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; font-size: .87rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; }
td.text { white-space: normal; min-width: 15rem; }
svg { display: block; overflow: visible; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .tick { fill: var(--soft); } svg .middle, svg .number { text-anchor: middle; }
svg .grid { stroke: var(--line); } svg .front { stroke: var(--chosen); stroke-width: 2; }
svg circle.good { fill: var(--good); } svg circle.chosen { fill: var(--chosen); }
svg circle.refused { fill: var(--back); stroke: var(--refused); }
svg circle.baseline { fill: var(--text); } svg .number { font-size: 11px; }
svg .number.good, svg .number.chosen, svg .number.baseline { fill: var(--on); }
svg .bar { fill: var(--bar); } svg .part { fill: var(--good); }
svg .gone { fill: none; stroke: var(--good); stroke-dasharray: 3 2; }
svg .added { fill: var(--limit); }
svg .median { stroke: var(--text); stroke-width: 2; }
svg .zero { stroke: var(--soft); }
svg .limit { stroke: var(--limit); stroke-dasharray: 4 3; }
svg .whisker { stroke-width: 2; } svg line.before { stroke: var(--refused); }
svg line.after { stroke: var(--good); }
svg circle.before { fill: var(--refused); } svg circle.after { fill: var(--good); }
"""


def write_report(path: Path, report: Report) -> None:
    """Write the report. The same report gives the same bytes."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The whole document."""
    title = f"{report.model} {report.release}: optimisation"
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    main = element(
        "main",
        element("h1", title),
        _summary(report),
        _facts(report),
        *(_profile(report, profile) for profile in report.profiles),
    )
    return "<!doctype html>\n" + element("html", head, element("body", main), lang="en") + "\n"


def _summary(report: Report) -> Markup:
    """The first lines: the variant of each profile and why."""
    return joined(
        [
            element("p", element("strong", f"{one.profile}: "), verdict(one), class_=_kind(one))
            for one in report.profiles
        ]
    )


def _kind(profile: ProfileReport) -> str:
    return "verdict" if profile.chosen else "verdict none"


def _facts(report: Report) -> Markup:
    facts = {"metric": report.metric, **report.facts}
    parts = [joined([element("dt", name), element("dd", value)]) for name, value in facts.items()]
    return element("dl", *parts)


def _profile(report: Report, profile: ProfileReport) -> Markup:
    return element(
        "section",
        element("h2", profile.profile),
        _table(profile),
        element("div", *_charts(report, profile), class_="charts"),
    )


def _table(profile: ProfileReport) -> Markup:
    head = element("tr", *(element("th", name, scope="col") for name in HEAD))
    body = [element("tr", *_cells(cells)) for cells in rows(profile)]
    table = element("table", element("thead", head), element("tbody", *body))
    return element(
        "div",
        table,
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"Candidates for {profile.profile}",
    )


def _cells(cells: tuple[str, ...]) -> Iterable[Markup]:
    *figures, text = cells
    yield from (element("td", cell) for cell in figures)
    yield element("td", text, class_="text")


def _charts(report: Report, profile: ProfileReport) -> Iterable[Markup]:
    charts = (
        (
            "Metric and size",
            (
                f"{report.metric} over the size of the file. B is the baseline, green the variant "
                "that was chosen, hollow ones are refused. The line is the Pareto front."
            ),
            over_size(profile),
        ),
        (
            "Metric and latency",
            f"{report.metric} over the median time of a batch.",
            over_latency(profile),
        ),
        (
            "From the model to the transfer",
            "The size after each step of the chosen variant. The dashed part is what a step saved.",
            drops(profile),
        ),
        ("Sizes of all", "The file, and darker what a device fetches.", sizes(profile)),
        (
            "Latency",
            (
                "The line is 5 to 95 % of the runs, the box 25 to 75 %, with the median. All "
                "candidates ran in turns."
            ),
            latencies(profile),
        ),
        (
            "Metric against the baseline",
            (
                "Paired differences with intervals. The dashed line is the loss that is allowed; "
                "grey ones are refused."
            ),
            losses(profile),
        ),
        (
            "Accuracy by class",
            (
                "Grey is the baseline, blue the chosen variant. Intervals are of single "
                "classes: wide where a class has few cases."
            ),
            by_class(profile),
        ),
        (
            "Sensitivity of layers",
            "The error of the outputs over their size when one layer alone is quantised.",
            sensitivity(profile),
        ),
    )
    missing = {
        "Accuracy by class": "No variant was chosen, or the cases have no class that is right or "
        "wrong.",
        "Sensitivity of layers": "Layers are ranked only where every static INT8 variant loses "
        "too much accuracy: then the worst of them stay in float.",
    }
    for title, text, chart in charts:
        if chart is not None:
            yield element("div", element("h3", title), element("p", text, class_="soft"), chart)
        elif title in missing:
            none = f"Not shown. {missing[title]}"
            yield element("div", element("h3", title), element("p", none, class_="soft"))
