"""Every check of ``edgefleet doctor``, in the order in which it runs them."""

from collections.abc import Callable
from typing import Final

from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.doctor import (
    clock,
    copies,
    data_folder,
    disk,
    disk_faults,
    hub,
    keys,
    python,
    quarantined_devices,
    restored,
    rollouts,
    serving_packages,
    token,
    unused_releases,
)
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State

CHECKS: Final[tuple[tuple[str, Callable[[Context], Finding]], ...]] = (
    ("python", python.check),
    ("serving", serving_packages.check),
    ("data folder", data_folder.check),
    ("disk", disk.check),
    ("hub", hub.check),
    ("token", token.check),
    ("clock", clock.check),
    ("keys", keys.check),
    ("releases", unused_releases.check),
    ("rollouts", rollouts.check),
    ("devices", quarantined_devices.check),
    ("device disks", disk_faults.check),
    ("restored", restored.check),
    ("copies", copies.check),
)


def run_checks(context: Context) -> tuple[Finding, ...]:
    """The findings of all checks."""
    return tuple(_run(name, check, context) for name, check in CHECKS)


def _run(name: str, check: Callable[[Context], Finding], context: Context) -> Finding:
    try:
        return check(context)
    except EdgefleetError as error:
        return Finding(check=name, state=State.BAD, text=error.message, fix=error.hint)
