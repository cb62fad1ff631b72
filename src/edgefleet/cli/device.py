"""``edgefleet device``: the enrolled devices, claims, and quarantine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import access, reach
from edgefleet.cli.device_options import device_filter, page_options
from edgefleet.cli.device_verbs import label_text
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.cli.screen import facts, table
from edgefleet.cli.serving_cell import serving_cell
from edgefleet.cli.values import DURATION, LABEL, age, duration

if TYPE_CHECKING:
    from edgefleet.protocol.operator import DeviceModel, DevicePage, DeviceView


@verb(
    "list",
    examples=(
        "edgefleet device list",
        "edgefleet device list --selector 'site=lyon,tier in (gold,silver)'",
        "edgefleet device list --runs detector:3 --phase trial",
        "edgefleet device list --quarantined",
        "edgefleet device list --rollout ro-01j9x2m4k7p3d5vq --standing failed",
        "edgefleet device list --agent 0.1.0 --limit 20 --json",
    ),
)
@page_options
@pass_invocation
def list_(invocation: Invocation, /, limit: int, after: str | None, **given: Any) -> None:
    """List devices, one page at a time.

    Each row shows, by model, the releases that the device runs and should run, and when the hub
    last received a check-in. Column `serving` is empty if the last check-in reported nothing wrong.
    Several options select the devices that have each of the properties.
    """
    with reach(invocation) as hub:
        page = hub.devices(after=after, limit=limit, only=device_filter(given))
    invocation.screen.answer(page, _page(page))


@verb(
    "search",
    examples=("edgefleet device search lyon", "edgefleet device search cam-04 --failed --json"),
)
@click.argument("text", metavar="TEXT")
@page_options
@pass_invocation
def search(
    invocation: Invocation, /, text: str, limit: int, after: str | None, **given: Any
) -> None:
    """List the devices with this text in their name, or in the value of a label.

    Upper and lower case are equal.
    """
    with reach(invocation) as hub:
        page = hub.devices(after=after, limit=limit, only=device_filter(given, search=text))
    invocation.screen.answer(page, _page(page))


def _page(page: DevicePage) -> list[str]:
    now = time.time()
    head = (
        "device", "profile", "state", "serving", "phase", "runs", "desired", "last seen", "labels",
    )  # fmt: skip
    rows = [
        (
            device.name,
            device.profile,
            device_state(device),
            serving_cell(device.serving, now),
            _named(device, lambda one: one.phase),
            "unknown" if device.unknown_set else _named(device, lambda one: one.release),
            _named(device, lambda one: one.desired),
            _last_contact(device, now),
            ",".join(f"{key}={value}" for key, value in device.labels.items()),
        )
        for device in page.devices
    ]
    lines = table(head, rows)
    more = f"{len(page.devices)} of {page.count} devices. More: --after {page.next}"
    return [*lines, more] if page.next else lines


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
        ("labels", label_text(view)),
        ("agent", view.agent_version),
        ("enrolled", age(view.enrolled_at, now)),
        ("last seen", _last_contact(view, now)),
        ("state", device_state(view)),
        *([("serving", serving_cell(view.serving, now))] if view.serving else []),
        *_quarantined(view.quarantined),
        *(("agent run", f"{one.run}, last seen {age(one.last_seen, now)}") for one in view.copies),
        *([("disk", view.disk_fault_text)] if view.disk_fault else []),
        *([("late labels", f"{view.labels_waiting} wait")] if view.labels_waiting else []),
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


def _last_contact(device: DeviceView, now: float) -> str:
    """The age of the last check-in. The hub stores it now and then, so an old one is a bound."""
    stored = ", before the hub started" if device.before_start else ""
    return f"{age(device.last_seen, now) or 'never'}{stored}"


_UNKNOWN_SET: Final = "unknown: the hub's table of release sets is full"


def _named(device: DeviceView, value: Callable[[DeviceModel], str | None]) -> str | None:
    """The values of all models, each with its model. Nothing for models without one."""
    found = [f"{one.model} {value(one)}" for one in device.models if value(one) is not None]
    return ", ".join(found) or None


def device_state(device: DeviceView) -> str:
    """``online`` or ``offline``, and ``quarantined`` and ``copied`` if it is."""
    state = "online" if device.online else "offline"
    state += ", quarantined" if device.quarantined else ""
    return f"{state}, copied" if device.copies else state


def _quarantined(models: tuple[str, ...]) -> list[tuple[str, str]]:
    if not models:
        return []
    return [("quarantined", f"two different releases of {', '.join(models)} failed on it")]


@verb("why", examples=("edgefleet device why cam-0419",))
@click.argument("device", metavar="DEVICE")
@pass_invocation
def why(invocation: Invocation, device: str) -> None:
    """Explain why a device runs its releases, and what it waits for, by model."""
    from edgefleet.cli.wait_report import wait_lines

    with reach(invocation) as hub:
        report = hub.why_device(device)
    invocation.screen.answer(report, wait_lines(report))


@verb(
    "history",
    examples=("edgefleet device history cam-0419", "edgefleet device history cam-0419 --json"),
)
@click.argument("device", metavar="DEVICE")
@pass_invocation
def history(invocation: Invocation, device: str) -> None:
    """Show what a device did with each release that it was offered, newest first.

    Each row is one attempt: how it ended and when, how long its trial took, and the cause with the
    measured value and the limit. An attempt that failed has its cause in the words of the device.
    """
    from edgefleet.cli.device_history import history_lines

    with reach(invocation) as hub:
        found = hub.device_history(device)
    invocation.screen.answer(found, history_lines(found))


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
    from edgefleet.protocol.operator import ClaimRequest

    request = ClaimRequest(count=count, valid_s=valid, labels=dict(labels))
    with reach(invocation) as hub:
        claims = hub.claim(request)
    invocation.screen.answer(claims, claims.claims)
    if not invocation.json:
        url = access(invocation).url
        invocation.screen.note(
            f"Valid for {duration(valid)}. On the device, put {_one(count)} into a file that only "
            "the agent's user can read, then run:\n"
            f"  edgefleet agent run --hub {url} --claim-file FILE --name NAME"
            " --profile PROFILE --data-dir FOLDER --trust publisher.pub"
        )


def _one(count: int) -> str:
    return "the claim" if count == 1 else "one of the claims"


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
    from edgefleet.protocol.operator import Unquarantine

    with reach(invocation) as hub:
        view = hub.unquarantine(device, Unquarantine(person=person, note=note))
    invocation.screen.answer(view, [f"{view.name} is no longer quarantined. {view.line}"])
