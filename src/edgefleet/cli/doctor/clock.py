"""The clocks of this machine and of the hub."""

from typing import Final

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import duration

SKEW_WARNING_S: Final = 5.0  # the Date header has whole seconds
SKEW_BAD_S: Final = 120.0


def check(context: Context) -> Finding:
    theirs = context.hub_time
    if theirs is None:
        return Finding(check="clock", state=State.SKIPPED, text="The hub sends no time.")
    ahead_s = context.clock.now() - theirs
    skew_s = abs(ahead_s)
    side = "ahead of" if ahead_s > 0 else "behind"
    if skew_s < SKEW_WARNING_S:
        return Finding(check="clock", state=State.OK, text="The clock agrees with the hub's clock.")
    return Finding(
        check="clock",
        state=State.BAD if skew_s >= SKEW_BAD_S else State.WARNING,
        text=f"This machine's clock is {duration(skew_s)} {side} the hub's.",
        fix="Run on both machines: sudo timedatectl set-ntp true",
    )
