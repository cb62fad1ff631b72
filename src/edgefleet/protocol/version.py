"""Which protocol versions can speak to each other."""

from typing import Final

from edgefleet.base.errors import DeviceError

PROTOCOL: Final = 2
OLDEST: Final = 1  # two versions back, once there are that many
PREVIOUS: Final = PROTOCOL - 1  # the oldest whose agents are given releases
ASKS_FOR_LEAVE: Final = 2  # the first whose agents start only when the hub has acknowledged it


def is_served(version: int) -> bool:
    """True for agents that are given releases: those of this version and of the one before."""
    return PREVIOUS <= version <= PROTOCOL


def starts_by_itself(version: int) -> bool:
    """True for agents that are served, and start what they are offered without asking again."""
    return PREVIOUS <= version < ASKS_FOR_LEAVE


def check_protocol(version: int) -> None:
    """Raise DeviceError ``protocol_unsupported`` when ``version`` is none that we speak."""
    if not OLDEST <= version <= PROTOCOL:
        raise DeviceError(
            "protocol_unsupported",
            f"The peer speaks protocol {version}, this side {OLDEST} to {PROTOCOL}.",
            field="protocol",
        )
