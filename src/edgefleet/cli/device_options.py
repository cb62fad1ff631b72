"""The options that select devices of a list, and the page of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from edgefleet.protocol.device import Phase
from edgefleet.protocol.device_commands import STATES, DeviceFilter

F = TypeVar("F", bound=Callable[..., object])

_OPTIONS: Final = (
    click.option(
        "--selector", default="", help="Kubernetes label selector; empty selects all devices."
    ),
    click.option(
        "--runs",
        metavar="MODEL[:RELEASE]",
        default="",
        help="Only devices that run this release, or any release of the model.",
    ),
    click.option(
        "--phase", type=click.Choice([one.value for one in Phase]), help="Only in this phase."
    ),
    click.option("--online", is_flag=True, help="Only devices that check in."),
    click.option("--offline", is_flag=True, help="Only devices that do not check in."),
    click.option(
        "--quarantined", is_flag=True, help="Only devices that get no releases of a model."
    ),
    click.option(
        "--failed",
        is_flag=True,
        help="Only devices that failed or refused the release of an open rollout, or of the newest "
        "rollout of a model.",
    ),
    click.option(
        "--ahead", is_flag=True, help="Only devices that run what the hub has no record of."
    ),
    click.option(
        "--copied", is_flag=True, help="Only devices whose credential several agents use."
    ),
    click.option("--disk-fault", is_flag=True, help="Only devices that cannot write their disk."),
    click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Devices per page."),
    click.option("--after", metavar="DEVICE", help="Start after this device."),
)


def page_options(command: F) -> F:
    """Add the options. ``device_filter`` reads all but ``limit`` and ``after``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def device_filter(given: Mapping[str, Any], search: str = "") -> DeviceFilter:
    """The filter of the options."""
    return DeviceFilter(
        selector=given["selector"],
        runs=given["runs"],
        phase=given["phase"] or "",
        states=tuple(state for state in STATES if given[state]),
        search=search,
    )
