"""The final report of the demo: one JSON object, or a table for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgefleet.cli.demo.checks import Check, accuracy, exposed_to_bad, of_model, opened
from edgefleet.cli.demo.observations import StoryObservations
from edgefleet.cli.demo.story import models_of
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

    model: str
    release: str
    verdict: str
    reason: str
    waves: tuple[WaveReport, ...]


class DevicesReport(Wire, frozen=True, kw_only=True):
    """``on_release`` counts online devices by model and release.

    ``real`` has the models of each real device, with the release that its serving process serves.
    """

    total: int
    on_release: dict[str, dict[str, int]]
    real: dict[str, dict[str, str]]


class ModelReport(Wire, frozen=True, kw_only=True):
    """Answers of one model. ``accuracy`` is the share of right ones by release."""

    requests: int
    failed: int
    accuracy: dict[str, float]


class InferenceReport(Wire, frozen=True, kw_only=True):
    """Answers to the clients of the real agents over the whole demo: all, and by model."""

    requests: int
    failed: int
    models: dict[str, ModelReport]


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
            total=observed.hub.total,
            on_release=observed.hub.on_release,
            real={device.name: dict(device.served) for device in observed.real},
        ),
        exposed_to_bad=exposed_to_bad(observed),
        inference=InferenceReport(
            requests=sum(client.requests for client in observed.clients),
            failed=sum(client.failed for client in observed.clients),
            models={model: _model(observed, model) for model in models_of(observed.chapters)},
        ),
        checks=checks,
        seconds=round(observed.seconds, 1),
        hub=observed.url,
    )


def _model(observed: StoryObservations, model: str) -> ModelReport:
    clients = of_model(observed, model)
    shares = accuracy(clients).get(model, {})
    return ModelReport(
        requests=sum(client.requests for client in clients),
        failed=sum(client.failed for client in clients),
        accuracy={release: round(share, 4) for release, share in shares.items()},
    )


def _rollout(view: RolloutView) -> RolloutReport:
    return RolloutReport(
        model=view.model,
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
        table.add_column(name, no_wrap=name == "reason")
    for rollout in report.rollouts:
        share = report.inference.models[rollout.model].accuracy.get(rollout.release)
        table.add_row(
            f"{rollout.model} {rollout.release}",
            Text(rollout.verdict, "green" if rollout.verdict == "completed" else "yellow"),
            rollout.reason,
            "\n".join(f"{wave.percent:g} %: {wave.exposed}/{wave.cut}" for wave in rollout.waves),
            "-" if share is None else f"{share:.1%}",
        )
    console.print()
    console.print(table)
    console.print(_models(report))
    console.print(f"{report.devices.total} devices.", highlight=False)
    for check in report.checks:
        mark = Text("ok    ", "green") if check.holds else Text("FAILED", "bold red")
        console.print(Text.assemble(mark, f" {clean(check.text)}"), soft_wrap=True)


def _models(report: DemoReport) -> Table:
    """One row for each model: where it runs, and what its clients got."""
    table = Table(title="Models", title_justify="left", title_style="bold")
    for name in ("model", "online devices", "real devices", "requests", "failed"):
        table.add_column(name)
    real = report.devices.real.values()
    for name, model in report.inference.models.items():
        online = report.devices.on_release.get(name, {})
        table.add_row(
            name,
            "\n".join(f"{count} on release {release}" for release, count in online.items()),
            f"{sum(name in served for served in real)} of {len(real)}",
            str(model.requests),
            Text(str(model.failed), "bold red" if model.failed else "green"),
        )
    return table
