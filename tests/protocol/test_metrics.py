"""Every metric of the table is in each place that must know it: device, hub, plan, CLI, page, docs, simulator.

A reader is a function that returns the keys of the metrics that its place has. Each is also run with
one metric taken out of that place, and must miss that metric and no other.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edgefleet.agent import cost_window, quality_window, telemetry
from edgefleet.agent import labels as agent_labels
from edgefleet.agent.cost_figures import Board, CostWindows
from edgefleet.agent.state import AgentState, Soft
from edgefleet.agent.step_context import DeviceContext
from edgefleet.base.errors import OperatorError
from edgefleet.cli.rollout import options
from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Outcome, OutcomeKind, Scores, Sketches, Switch, Telemetry
from edgefleet.protocol.labels import LabelReport, ModelLabels, ReleaseLabels
from edgefleet.protocol.metric_bounds import Bound, Bounds
from edgefleet.protocol.metric_kinds import ChangeMetric, LimitMetric, Metric
from edgefleet.protocol.metrics import (
    BOUNDS,
    CHANGES,
    LIMITS,
    METRICS,
    RATES,
)
from edgefleet.protocol.rollout import Cohort, Difference, Evidence, GateSpec, LimitCounts, Rate
from edgefleet.protocol.serving import LiveStats, ServingStatus
from edgefleet.rollout import plan
from edgefleet.rollout.evidence import cohorts, device_limits, gate
from edgefleet.sim.virtual import labelling
from edgefleet.sim.virtual import telemetry as simulated
from edgefleet.sim.virtual.labelling import Labelled, Stint
from edgefleet.sim.virtual.scenario import NEW, OLD, Truth
from edgefleet.web import gate_tests
from support.agent_world import serving_model

DOCS = Path(__file__).parents[2] / "docs"
LABELS = ModelLabels(model="digits", releases=(ReleaseLabels(release="1", labelled=16, correct=8),))
KEYS = [metric.key for metric in METRICS]
ON = GateSpec(**{bound.field: bound.off / 2 for bound in BOUNDS if bound.off is not None})


def bound_of(metric: Metric) -> str | None:
    return metric.bound.field if isinstance(metric.bound, Bound) else None


def costs(sensed: Callable[[str, float], tuple[LiveStats, Board | None]]) -> Scores | None:
    """The scores over ten minutes that the agent's own code makes of two releases in turn."""
    windows = CostWindows()
    for at in range(0, 2000, 30):
        release = OLD if at < 1000 else NEW
        stats, board = sensed(release, float(at))
        status = replace(serving_model(release), stats=stats)
        windows = cost_window.advance(windows, status, 1, board, float(at))
    return windows.scores


def report(
    stats: Callable[[str], LiveStats],
    sensed: Callable[[str, float], tuple[LiveStats, Board | None]],
) -> Telemetry:
    """The telemetry that the agent's own code makes of two releases that serve in turn."""
    windows = quality_window.Windows()
    now, tallies = 0.0, ()
    for release in (OLD, OLD, NEW, NEW, NEW):  # the first of them is the warm-up
        now += 100.0
        grown = stats(release)
        status = replace(serving_model(release), stats=grown)
        windows = quality_window.advance(windows, status, grown, now)
        tallies, _ = telemetry.fold(tallies, 1, status, grown)
    return replace(tallies[-1], scores=windows.scores, costs=costs(sensed))


def busy(release: str) -> LiveStats:
    return LiveStats(
        requests=200, errors=150, refused=50, confidence_sum=150.0, confidence_count=200, latency_us_p50=1,
        latency_us_p95=10_000_000, memory_mib=1000, cpu_s=200.0,
        sketches=Sketches(latency={bucket(9_000_000): 200}, confidence=(200,), classes=(200,), inputs=(200,)),
    )  # fmt: skip


def sensed(release: str, at: float) -> tuple[LiveStats, Board | None]:
    """A new release that leaks, heats the board until it is throttled, and drains the battery."""
    kib, worse = 40_000 + int(at), release == NEW
    board = Board(
        temperature_c=70.0 if worse else 50.0, is_throttled=worse, battery_percent=90 - at / 100
    )
    return LiveStats(requests=int(at), process_kib=kib + (100 * int(at) if worse else 0)), board


def golden() -> Outcome:
    return Outcome(
        id="1", rollout="r", release=NEW, kind=OutcomeKind.CONFIRMED, at=0.0, accuracy=0.5,
        accuracy_before=0.9,
    )  # fmt: skip


def carried(said: Telemetry, outcome: Outcome, allowed: float | None) -> set[str]:
    """The metrics that can be read from a report and a confirmation; rates need only outcomes."""
    found = {metric.key for metric in RATES}
    for change in CHANGES:
        if change.confirmed is not None and change.confirmed(outcome) is not None:
            found.add(change.key)
        for scores in (said.scores, said.costs):
            if change.scored is not None and scores and change.scored(scores) is not None:
                found.add(change.key)
    for limit in LIMITS:
        if limit.exceeds(said, limit.allowed(ON) if allowed is None else allowed, 64):
            found.add(limit.key)
    return found


def labelled(status: ServingStatus | None) -> set[str]:
    """The metrics of late labels, if the agent reports the counts of this status."""
    state = AgentState(soft=Soft(serving=status))
    if agent_labels.to_report(DeviceContext(state, 0.0)) is None:
        return set()
    return {one.key for one in CHANGES if one.of_labels}


def device() -> set[str]:
    counts = LabelReport(epoch=1, models=(LABELS,))
    found = carried(report(busy, sensed), golden(), None)
    return found | labelled(ServingStatus(pid=1, labels=counts))


def simulator() -> set[str]:
    def stats(release: str) -> LiveStats:
        return simulated.sketched(simulated.truth_of(release, Truth()), 200, 10, 0.5, refused=10)

    def simulated_cost(release: str, at: float) -> tuple[LiveStats, Board | None]:
        truth = simulated.truth_of(release, Truth())
        return simulated.sketched(truth, 200, 10, 0.5, run_s=at), simulated.board(0.0, at)

    accuracy = simulated.proof(NEW, Truth(), 0.0).accuracy
    outcome = replace(golden(), accuracy=accuracy, accuracy_before=accuracy)
    stint = Stint("digits", NEW, 0.9, 1.0, 0.0, 100.0)
    counts = labelling.report((stint,), Labelled(share=0.5), 100.0, epoch=1, row=0, luck=0.5)
    labels = labelled(ServingStatus(pid=1, labels=counts))
    return labels | carried(
        report(stats, simulated_cost), outcome, 0.01
    )  # so little that only a figure of 0 is below it


def counted() -> set[str]:
    """The metrics that the cohorts count, and the rates that the gate weighs."""
    sides = cohorts.Cohorts()
    said = report(busy, sensed)
    assert said.scores is not None
    assert said.costs is not None
    steady = replace(
        said,
        release=OLD,
        scores=replace(said.scores, from_release=OLD, to_release=OLD),
        costs=replace(said.costs, from_release=OLD, to_release=OLD),
    )
    sides.add_control(1, steady, ON, 64)
    for _ in range(2):  # the first report after a switch has no latency to compare
        sides.add_canary(2, said, ON, 64)
    switch = Switch(model="other", release=NEW)
    beside = replace(steady, model="neighbour")
    sides.neighbours.add(1, beside, ON, None)
    assert beside.scores is not None
    harmed = replace(said.scores, from_release=OLD, to_release=OLD, switched=switch)
    sides.neighbours.add(2, replace(beside, scores=harmed), ON, switch)
    sides.confirmed(golden(), ON)
    for row, control in ((1, True), (2, False)):
        sides.labels.add(
            row, 1, LABELS, release="1" if not control else "2",
            previous="1" if control else "2", gate=ON, is_control=control, period=1,
        )  # fmt: skip
    limits, weighed = sides.limits(has_previous=True), gate.weigh(Evidence(healthy=3), ON)
    found = {one.metric for one in sides.differences()}
    found |= {limit.key for limit in LIMITS if getattr(limits, limit.counter)}
    return found | {rate.key for rate in RATES if getattr(weighed, rate.key).size}


def failing(metric: Metric) -> Evidence:
    """A wave of which everything is well but for one metric."""
    side = Cohort(devices=50, requests=5000)
    well = Evidence(cut=100, offered=50, healthy=50, exposed=50, canary=side, control=side)
    match metric:
        case ChangeMetric(key=key):
            bad = Difference(metric=key, pairs=50, mean=0.5, allowed=0.1, e_value=1e9)
            return replace(well, quality=(bad,))
        case LimitMetric(counter=counter):
            return replace(well, limits=LimitCounts(devices=50, **{counter: 50}))
        case Metric(key="silence"):
            return replace(well, failed=2, silent=50, healthy=48)
        case _:
            return replace(well, failed=50, healthy=0)


def judged() -> set[str]:
    found = set()
    for metric in METRICS:
        said = gate.judge(failing(metric), ON, opened_at=0.0, before=None, now=1.0)
        if said.reason == metric.reason:
            found.add(metric.key)
    return found


def planned() -> set[str]:
    found = set()
    for metric in METRICS:
        field = bound_of(metric)
        if field is None:
            found.add(metric.key)  # a constant: no plan can set it
            continue
        try:
            plan.check_gate(replace(GateSpec(), **{field: -1.0}))
        except OperatorError as error:
            if error.field == f"gate.{field}":
                found.add(metric.key)
    return found


def command_line() -> set[str]:
    known = {(knob.name, knob.option) for knob in options.KNOBS}
    return {
        metric.key for metric in METRICS
        if not isinstance(metric.bound, Bound)
        or (f"gate.{metric.bound.field}", metric.bound.option) in known
    }  # fmt: skip


def page() -> set[str]:
    some = Rate(bad=1, size=2)
    evidence = Evidence(
        errors=some, silence=some, quality=tuple(Difference(metric=one.key) for one in CHANGES)
    )
    names = {shown.name.partition(",")[0] for shown in gate_tests.gate_tests(evidence)}
    above = dict(gate_tests.limit_counts(LimitCounts()))
    shown = {one.key for one in (*RATES, *CHANGES) if one.label.partition(",")[0] in names}
    return shown | {one.key for one in LIMITS if one.label in above}


def read(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def docs() -> set[str]:
    rows = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", read("gate"), re.MULTILINE))
    headings = set(re.findall(r"^### gate\.(\w+)$", read("rollouts"), re.MULTILINE))
    return {
        one.key for one in METRICS
        if (one.key, one.reason) in rows and (bound_of(one) is None or bound_of(one) in headings)
    }  # fmt: skip


READERS: dict[str, Callable[[], set[str]]] = {
    "device": device,
    "cohorts": counted,
    "gate": judged,
    "plan": planned,
    "command line": command_line,
    "page": page,
    "docs": docs,
    "simulator": simulator,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("key", KEYS)
def test_every_reader_has_the_metric(reader: str, key: str) -> None:
    assert key in READERS[reader](), f"{reader} does not have the metric {key}"


def test_keys_are_unique_and_each_bound_of_a_plan_belongs_to_a_metric() -> None:
    assert len(set(KEYS)) == len(KEYS)
    assert {bound.field for bound in BOUNDS} == {
        field.name for field in msgspec.structs.fields(Bounds)
    }


def test_each_change_is_read_from_one_report() -> None:
    ways = {
        one.key: (one.scored is not None) + (one.confirmed is not None) + one.of_labels
        for one in CHANGES
    }
    assert set(ways.values()) == {1}, ways


def without(table: tuple[Metric, ...], key: str) -> tuple[Metric, ...]:
    return tuple(one for one in table if one.key != key)


def blind(scores: Scores | None, key: str) -> Scores | None:
    """The scores without the field that the metric reads."""
    metric = next(one for one in CHANGES if one.key == key)
    assert metric.scored is not None
    for field in msgspec.structs.fields(Scores):
        if scores is not None and not field.required:
            less = replace(scores, **{field.name: None})
            if metric.scored(less) is None and metric.scored(scores) is not None:
                return less
    return scores


def same_score(key: str) -> set[str]:
    """The metrics that read the same field of the scores: of the model itself and of neighbours."""
    said = report(busy, sensed)
    found: set[str] = set()
    for full in (said.scores, said.costs):
        less = blind(full, key)
        assert full is not None
        assert less is not None
        found |= {
            one.key for one in CHANGES
            if one.scored is not None and one.scored(full) is not None and one.scored(less) is None
        }  # fmt: skip
    return found


def plant(monkeypatch: pytest.MonkeyPatch, reader: str, key: str) -> None:
    """Take the metric out of one place, as someone who forgot it there would."""
    modules = {
        "cohorts": (cohorts, device_limits), "gate": (gate,), "page": (gate_tests,)
    }.get(reader)  # fmt: skip
    if modules is not None:
        for table in ("CHANGES", "LIMITS"):
            module = next(one for one in modules if hasattr(one, table))
            monkeypatch.setattr(module, table, without(getattr(module, table), key))
    elif reader == "plan":
        fields = {bound_of(one) for one in METRICS if one.key == key}
        monkeypatch.setattr(plan, "BOUNDS", tuple(one for one in BOUNDS if one.field not in fields))
    elif reader == "command line":
        names = {f"gate.{bound_of(one)}" for one in METRICS if one.key == key}
        kept = tuple(knob for knob in options.KNOBS if knob.name not in names)
        monkeypatch.setattr(options, "KNOBS", kept)
    elif reader == "docs":
        row = re.compile(rf"^\| `{key}` \|.*$", re.MULTILINE)
        monkeypatch.setitem(globals(), "read", lambda name, read=read: row.sub("", read(name)))
    else:
        for module in (quality_window, cost_window):
            monkeypatch.setattr(
                module,
                "compare",
                lambda *two, compare=module.compare: blind(compare(*two), key),
            )


def planted() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for metric in METRICS:
        found.append(("docs", metric.key))
        if bound_of(metric) is not None:
            found += [("plan", metric.key), ("command line", metric.key)]
        if isinstance(metric, ChangeMetric | LimitMetric):
            found += [("cohorts", metric.key), ("gate", metric.key), ("page", metric.key)]
        if isinstance(metric, ChangeMetric) and metric.scored is not None:
            found += [("device", metric.key), ("simulator", metric.key)]
    return found


@pytest.mark.parametrize(("reader", "key"), planted())
def test_a_metric_that_one_reader_lost_is_found_by_name(
    monkeypatch: pytest.MonkeyPatch, reader: str, key: str
) -> None:
    same = same_score(key) if reader in ("device", "simulator") else set()
    plant(monkeypatch, reader, key)
    missing = set(KEYS) - READERS[reader]()
    assert key in missing
    bounds = {one.key: bound_of(one) for one in METRICS}
    alike = {other for other in missing if bounds[other] == bounds[key]}  # share the plan's field
    alike |= same
    assert missing - alike - {key} == set()
    with pytest.raises(AssertionError, match=f"{reader} does not have the metric {key}"):
        test_every_reader_has_the_metric(reader, key)
