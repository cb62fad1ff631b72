"""The options that select devices of a list, and the page of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from edgefleet.protocol.device import Phase
from edgefleet.protocol.device_commands import STANDINGS, STATES, DeviceFilter

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
    click.option(
        "--serving-down", is_flag=True, help="Only devices that do not serve a confirmed release."
    ),
    click.option(
        "--serving-unstable",
        is_flag=True,
        help="Only devices whose serving process ended in the last hour.",
    ),
    click.option("--profile", metavar="NAME", default="", help="Only of this hardware class."),
    click.option("--runtime", metavar="NAME", default="", help="Only with this runtime."),
    click.option(
        "--agent", metavar="VERSION", default="", help="Only with this version of the agent."
    ),
    click.option(
        "--rollout", metavar="ID", default="", help="Only devices that reported to this rollout."
    ),
    click.option(
        "--standing",
        type=click.Choice(STANDINGS),
        help="Only with this standing in the rollout of --rollout.",
    ),
    click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Devices per page."),
    click.option(
        "--after", metavar="CURSOR", help="Start after the page that ended with this cursor."
    ),
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
        profile=given["profile"],
        runtime=given["runtime"],
        agent=given["agent"],
        rollout=given["rollout"],
        standing=given["standing"] or "",
    )
