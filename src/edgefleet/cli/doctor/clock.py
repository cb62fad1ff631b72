"""The clocks of this machine and of the hub."""

from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import duration

SKEW_LOOK_S: Final = 5.0  # the Date header tells whole seconds
SKEW_BAD_S: Final = 120.0


def check(ground: Ground) -> Finding:
    theirs = ground.hub_time
    if theirs is None:
        return Finding(check="clock", state=State.SKIPPED, text="The hub does not say its time.")
    ahead_s = ground.clock.now() - theirs
    skew_s = abs(ahead_s)
    side = "ahead of" if ahead_s > 0 else "behind"
    if skew_s < SKEW_LOOK_S:
        return Finding(check="clock", state=State.OK, text="Agrees with the hub's.")
    return Finding(
        check="clock",
        state=State.BAD if skew_s >= SKEW_BAD_S else State.LOOK,
        text=f"This machine is {duration(skew_s)} {side} the hub.",
        fix="sudo timedatectl set-ntp true, on both machines",
    )
