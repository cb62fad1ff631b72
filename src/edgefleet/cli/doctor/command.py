"""``edgefleet doctor``: runs all checks and prints each finding with its fix."""

from collections.abc import Callable
from typing import Final

import click

from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.command import verb
from edgefleet.cli.doctor import (
    clock,
    copies,
    data_folder,
    disk,
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
from edgefleet.cli.doctor.finding import Diagnosis, Finding, State
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean

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
    ("restored", restored.check),
    ("copies", copies.check),
)
_COLOURS: Final = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.BAD: "red",
    State.SKIPPED: None,
}


@verb(
    "doctor",
    examples=("edgefleet doctor", "edgefleet doctor --hub http://hub.example:8400 --json"),
    exits=(Exit.FAILED,),
)
@pass_invocation
def doctor(invocation: Invocation) -> int:
    """Check this machine and the hub, and print a fix for each problem.

    Checks this machine (Python, the runtime, the data folder, the disk, the signing key) and the
    hub (reachable, token accepted, clocks agree, releases without a rollout, rollouts and
    quarantined devices that wait for a person). Changes nothing. Exits with 1 if a finding is bad.
    """
    context = Context(invocation, SystemClock())
    try:
        findings = tuple(_run(name, check, context) for name, check in CHECKS)
    finally:
        context.close()
    diagnosis = Diagnosis(findings=findings)
    if invocation.json:
        invocation.screen.answer(diagnosis, ())
    else:
        for finding in findings:
            _show(finding)
    bad = any(finding.state is State.BAD for finding in findings)
    return Exit.FAILED if bad else Exit.DONE


def _run(name: str, check: Callable[[Context], Finding], context: Context) -> Finding:
    try:
        return check(context)
    except EdgefleetError as error:
        return Finding(check=name, state=State.BAD, text=error.message, fix=error.hint)


def _show(finding: Finding) -> None:
    state = click.style(finding.state.value.ljust(8), fg=_COLOURS[finding.state])
    click.echo(f"{state} {finding.check.ljust(12)} {clean(finding.text)}")
    if finding.fix:
        click.echo(f"{' ' * 22}-> {clean(finding.fix)}")
