"""The final report of the demo: one JSON object, or a table for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgefleet.cli.demo.checks import Check, accuracy, exposed_to_bad, opened
from edgefleet.cli.demo.observations import StoryObservations
from edgefleet.cli.demo.story import MODEL
from edgefleet.cli.screen import clean
from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.wire import Wire


class WaveReport(Wire, frozen=True, kw_only=True):
    """An opened wave."""

    percent: float
    cut: int
    exposed: int


class RolloutReport(Wire, frozen=True, kw_only=True):
    """``verdict`` is completed, reverted or refused; ``reason`` a stable code."""

    release: str
    verdict: str
    reason: str
    waves: tuple[WaveReport, ...]


class DevicesReport(Wire, frozen=True, kw_only=True):
    """``on_release`` counts online devices."""

    total: int
    on_release: dict[str, int]


class InferenceReport(Wire, frozen=True, kw_only=True):
    """Answers to the clients of the real agents, over the whole demo."""

    requests: int
    failed: int
    accuracy: dict[str, float]


class DemoReport(Wire, frozen=True, kw_only=True):
    """The answer of ``edgefleet demo --json``."""

    rollouts: tuple[RolloutReport, ...]
    devices: DevicesReport
    exposed_to_bad: int
    inference: InferenceReport
    checks: tuple[Check, ...]
    seconds: float
    hub: str


def demo_report(observed: StoryObservations, checks: tuple[Check, ...]) -> DemoReport:
    return DemoReport(
        rollouts=tuple(_rollout(view) for view in observed.rollouts if view),
        devices=DevicesReport(
            total=observed.hub.total, on_release=dict(observed.hub.on_release.get(MODEL, {}))
        ),
        exposed_to_bad=exposed_to_bad(observed),
        inference=InferenceReport(
            requests=sum(client.requests for client in observed.clients),
            failed=sum(client.failed for client in observed.clients),
            accuracy={
                release: round(share, 4) for release, share in accuracy(observed.clients).items()
            },
        ),
        checks=checks,
        seconds=round(observed.seconds, 1),
        hub=observed.url,
    )


def _rollout(view: RolloutView) -> RolloutReport:
    return RolloutReport(
        release=view.release,
        verdict=view.status.value,
        reason=view.reason,
        waves=tuple(
            WaveReport(percent=wave.percent, cut=wave.cut or 0, exposed=wave.exposed)
            for wave in opened(view)
        ),
    )


def show(console: Console, report: DemoReport) -> None:
    """Print the table, then the checks."""
    table = Table(title="Rollouts", title_justify="left", title_style="bold")
    for name in ("release", "verdict", "reason", "wave: exposed / cut", "right answers"):
        table.add_column(name)
    for rollout in report.rollouts:
        share = report.inference.accuracy.get(rollout.release)
        table.add_row(
            rollout.release,
            Text(rollout.verdict, "green" if rollout.verdict == "completed" else "yellow"),
            rollout.reason,
            "\n".join(f"{wave.percent:g} %: {wave.exposed}/{wave.cut}" for wave in rollout.waves),
            "-" if share is None else f"{share:.1%}",
        )
    console.print()
    console.print(table)
    online = ", ".join(
        f"{count} on release {name}" for name, count in report.devices.on_release.items()
    )
    console.print(f"{report.devices.total} devices; online: {online}.", highlight=False)
    for check in report.checks:
        mark = Text("ok    ", "green") if check.holds else Text("FAILED", "bold red")
        console.print(Text.assemble(mark, f" {clean(check.text)}"), soft_wrap=True)
