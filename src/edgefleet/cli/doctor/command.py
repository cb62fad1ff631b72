"""``edgefleet doctor``: runs all checks and prints each finding with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from edgefleet.base.clock import SystemClock
from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean

if TYPE_CHECKING:
    from edgefleet.cli.doctor.finding import Finding


_COLOURS: Final = {"ok": "green", "warning": "yellow", "bad": "red", "skipped": None}


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
    quarantined devices that wait for a person, devices that cannot write their disk). Changes
    nothing. Exits with 1 if a finding is bad.
    """
    from edgefleet.cli.doctor.checks import run_checks
    from edgefleet.cli.doctor.context import Context
    from edgefleet.cli.doctor.finding import Diagnosis, State

    context = Context(invocation, SystemClock())
    try:
        findings = run_checks(context)
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


def _show(finding: Finding) -> None:
    state = click.style(finding.state.value.ljust(8), fg=_COLOURS[finding.state])
    click.echo(f"{state} {finding.check.ljust(12)} {clean(finding.text)}")
    if finding.fix:
        click.echo(f"{' ' * 22}-> {clean(finding.fix)}")
