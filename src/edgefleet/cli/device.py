"""``edgefleet device``: the enrolled devices, claims, and quarantine."""

import time
from collections.abc import Callable
from typing import Final

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import access, reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import DURATION, LABEL, age, duration
from edgefleet.cli.wait_report import wait_lines
from edgefleet.protocol.operator import (
    ClaimRequest,
    DeviceModel,
    DevicePage,
    DeviceView,
    Unquarantine,
)


@verb(
    "list",
    examples=(
        "edgefleet device list",
        "edgefleet device list --selector 'site=lyon,tier in (gold,silver)'",
        "edgefleet device list --runs detector:3",
        "edgefleet device list --limit 20 --after cam-0419 --json",
    ),
)
@click.option(
    "--selector", default="", help="Kubernetes label selector; empty selects all devices."
)
@click.option(
    "--runs",
    metavar="MODEL[:RELEASE]",
    default="",
    help="Only devices that run this release, or any release of the model.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Devices per page.")
@click.option("--after", metavar="DEVICE", help="Start after this device.")
@pass_invocation
def list_(invocation: Invocation, selector: str, runs: str, limit: int, after: str | None) -> None:
    """List devices, one page at a time.

    Each row shows, by model, the releases that the device runs and should run, and when the hub
    last received a check-in.
    """
    with reach(invocation) as hub:
        page = hub.devices(after=after, limit=limit, selector=selector or None, runs=runs or None)
    invocation.screen.answer(page, _page(page))


def _page(page: DevicePage) -> list[str]:
    now = time.time()
    head = ("device", "profile", "online", "phase", "runs", "desired", "last seen", "labels")
    rows = [
        (
            device.name,
            device.profile,
            "yes" if device.online else "no",
            _named(device, lambda one: one.phase),
            "unknown" if device.unknown_set else _named(device, lambda one: one.release),
            _named(device, lambda one: one.desired),
            age(device.last_seen, now) or "never",
            ",".join(f"{key}={value}" for key, value in device.labels.items()),
        )
        for device in page.devices
    ]
    lines = table(head, rows)
    return [*lines, f"More: --after {page.next}"] if page.next else lines


@verb("show", examples=("edgefleet device show cam-0419", "edgefleet device show cam-0419 --json"))
@click.argument("device", metavar="DEVICE")
@pass_invocation
def show(invocation: Invocation, device: str) -> None:
    """Show one device: its facts, its models with their releases, and the reasons."""
    with reach(invocation) as hub:
        view = hub.device(device)
    now = time.time()
    rows = [
        ("device", view.name),
        ("profile", view.profile),
        ("labels", ", ".join(f"{key}={value}" for key, value in view.labels.items())),
        ("agent", view.agent_version),
        ("enrolled", age(view.enrolled_at, now)),
        ("last seen", age(view.last_seen, now) or "never"),
        ("online", "yes" if view.online else "no"),
        *_quarantined(view.quarantined),
        *([("disk", view.disk_fault_text)] if view.disk_fault else []),
        *([("labels", f"{view.labels_waiting} wait")] if view.labels_waiting else []),
        *([("releases", _UNKNOWN_SET)] if view.unknown_set else []),
        *(
            ("own process", f"{one.model}: {one.isolation_text}")
            for one in view.models
            if one.isolation
        ),
        ("why", view.line),
    ]
    head = ("model", "runs", "phase", "desired", "by rollout", "memory limit", "why")
    models = [
        (
            one.model,
            "unknown" if view.unknown_set else one.release,
            one.phase,
            one.desired,
            one.rollout,
            None if one.memory_limit_mib is None else f"{one.memory_limit_mib} MiB",
            one.line,
        )
        for one in view.models
    ]
    invocation.screen.answer(view, [*facts(rows), "", *table(head, models)])


_UNKNOWN_SET: Final = "unknown: the hub's table of release sets is full"


def _named(device: DeviceView, value: Callable[[DeviceModel], str | None]) -> str | None:
    """The values of all models, each with its model. Nothing for models without one."""
    found = [f"{one.model} {value(one)}" for one in device.models if value(one) is not None]
    return ", ".join(found) or None


def _quarantined(models: tuple[str, ...]) -> list[tuple[str, str]]:
    if not models:
        return []
    return [("quarantined", f"two different releases of {', '.join(models)} failed on it")]


@verb("why", examples=("edgefleet device why cam-0419",))
@click.argument("device", metavar="DEVICE")
@pass_invocation
def why(invocation: Invocation, device: str) -> None:
    """Explain why a device runs its releases, and what it waits for, by model."""
    with reach(invocation) as hub:
        report = hub.why_device(device)
    invocation.screen.answer(report, wait_lines(report))


@verb(
    "claim",
    examples=(
        "edgefleet device claim",
        "edgefleet device claim --count 50 --valid 2h --label site=lyon --json",
    ),
)
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=1,
    help="How many claims; each enrols one device.",
)
@click.option(
    "--valid", type=DURATION, default="24h", metavar="DURATION", help="How long a claim is valid."
)
@click.option(
    "--label",
    "labels",
    type=LABEL,
    multiple=True,
    metavar="KEY=VALUE",
    help="Label of the devices that enrol with these claims; may be repeated.",
)
@pass_invocation
def claim(
    invocation: Invocation, count: int, valid: float, labels: tuple[tuple[str, str], ...]
) -> None:
    """Make one-use enrolment claims.

    A claim is a secret: it enrols one device. The hub stores only its digest, so the claim is
    shown only now.
    """
    request = ClaimRequest(count=count, valid_s=valid, labels=dict(labels))
    with reach(invocation) as hub:
        claims = hub.claim(request)
    invocation.screen.answer(claims, claims.claims)
    if not invocation.json:
        url = access(invocation).url
        invocation.screen.note(
            f"Valid for {duration(valid)}. Run on the device:\n"
            f"  edgefleet agent run --hub {url} --claim {claims.claims[0]} --name NAME"
            " --profile PROFILE --data-dir FOLDER --trust publisher.pub"
        )


@verb(
    "quarantined",
    examples=("edgefleet device quarantined", "edgefleet device quarantined --json"),
)
@pass_invocation
def quarantined(invocation: Invocation) -> None:
    """List quarantined devices: two different releases of a model failed on each.

    A quarantined device gets no more releases of that model. Inspect it, then run
    `edgefleet device unquarantine`.
    """
    with reach(invocation) as hub:
        found = hub.quarantined()
    rows = [(device.name, device.model, device.rollbacks) for device in found.devices]
    lines = table(("device", "model", "rollbacks"), rows)
    more = found.count - len(found.devices)
    invocation.screen.answer(found, [*lines, f"and {more} more"] if more > 0 else lines)


@verb(
    "unquarantine",
    examples=(
        "edgefleet device unquarantine cam-0419",
        "edgefleet device unquarantine cam-0419 --note 'new power supply' --json",
    ),
)
@click.argument("device", metavar="DEVICE")
@person_options
@pass_invocation
def unquarantine(invocation: Invocation, device: str, person: str, note: str) -> None:
    """Unquarantine a device: it gets releases again."""
    with reach(invocation) as hub:
        view = hub.unquarantine(device, Unquarantine(person=person, note=note))
    invocation.screen.answer(view, [f"{view.name} is no longer quarantined. {view.line}"])
