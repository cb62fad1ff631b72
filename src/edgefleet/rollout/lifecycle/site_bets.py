"""The durable state of the comparison of dark devices by site and time: see evidence.strata."""

from edgefleet.protocol.rollout import Outage
from edgefleet.protocol.wire import Wire


class SiteBets(Wire, frozen=True, kw_only=True):
    """The bets on groups of devices that went dark. They are stored with each closed group.

    A group that is open when the hub stops is observed anew after the start: devices at risk are
    then those that began after ``at``, so that no dark device counts in two groups.
    """

    log_wealth: tuple[float, ...] = ()  # one for each odds ratio; empty: no group was closed yet
    groups: int = 0
    at: float = 0.0  # when the last group was closed


def outage_text(outage: Outage) -> str:
    """The outage as sentences."""
    where = f"at {outage.key} {outage.value}" if outage.key else "of the fleet"
    return (
        f"Dark at one time: {outage.dark} of {outage.in_trial} devices in trial and "
        f"{outage.dark_control} of {outage.control} that have not begun, {where}. The release is "
        "not the cause; the devices in trial do not count."
    )
