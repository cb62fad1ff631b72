"""``edgefleet doctor``: all checks, each with what to do."""

from collections.abc import Callable
from typing import Final

import click

from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.command import verb
from edgefleet.cli.doctor import (
    clock,
    data_folder,
    devices,
    disk,
    hub,
    keys,
    python,
    releases,
    rollouts,
    serving,
    token,
)
from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Diagnosis, Finding, State
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean

CHECKS: Final[tuple[tuple[str, Callable[[Ground], Finding]], ...]] = (
    ("python", python.check),
    ("serving", serving.check),
    ("data folder", data_folder.check),
    ("disk", disk.check),
    ("hub", hub.check),
    ("token", token.check),
    ("clock", clock.check),
    ("keys", keys.check),
    ("releases", releases.check),
    ("rollouts", rollouts.check),
    ("devices", devices.check),
)
_COLOURS: Final = {State.OK: "green", State.LOOK: "yellow", State.BAD: "red", State.SKIPPED: None}


@verb(
    "doctor",
    examples=("edgefleet doctor", "edgefleet doctor --hub http://hub.example:8400 --json"),
    exits=(Exit.FAILED,),
)
@pass_invocation
def doctor(invocation: Invocation) -> int:
    """Look for what is wrong here, and say how to mend it.

    Looks at this machine (Python, the runtime, the data folder, the disk, the signing key) and at
    the hub (does it answer, does it accept the token, do the clocks agree, are there releases that
    go nowhere, does a rollout or a quarantined device wait for a person). Changes nothing. Ends
    with 1 when something will not work until it is mended.
    """
    ground = Ground(invocation, SystemClock())
    try:
        findings = tuple(_look(name, check, ground) for name, check in CHECKS)
    finally:
        ground.close()
    diagnosis = Diagnosis(findings=findings)
    if invocation.json:
        invocation.screen.answer(diagnosis, ())
    else:
        for finding in findings:
            _tell(finding)
    bad = any(finding.state is State.BAD for finding in findings)
    return Exit.FAILED if bad else Exit.DONE


def _look(name: str, check: Callable[[Ground], Finding], ground: Ground) -> Finding:
    try:
        return check(ground)
    except EdgefleetError as error:
        return Finding(check=name, state=State.BAD, text=error.message, fix=error.hint)


def _tell(finding: Finding) -> None:
    state = click.style(finding.state.value.ljust(8), fg=_COLOURS[finding.state])
    click.echo(f"{state} {finding.check.ljust(12)} {clean(finding.text)}")
    if finding.fix:
        click.echo(f"{' ' * 22}-> {clean(finding.fix)}")
