"""Supported protocol versions."""

from typing import Final

from edgefleet.base.errors import DeviceError

PROTOCOL: Final = 2
OLDEST: Final = 1  # two versions back, once there are three
PREVIOUS: Final = PROTOCOL - 1  # the oldest version whose agents get releases
FIRST_ASKING: Final = 2  # the first version whose agents ask for admission before a start


def is_served(version: int) -> bool:
    """True for agents that get releases: those of this version and of the previous one."""
    return PREVIOUS <= version <= PROTOCOL


def starts_by_itself(version: int) -> bool:
    """True for agents that get releases and start them without asking for admission."""
    return PREVIOUS <= version < FIRST_ASKING


def check_protocol(version: int) -> None:
    """Raises DeviceError ``protocol_unsupported`` if ``version`` is not supported."""
    if not OLDEST <= version <= PROTOCOL:
        raise DeviceError(
            "protocol_unsupported",
            f"The peer speaks protocol {version}, this side {OLDEST} to {PROTOCOL}.",
            field="protocol",
        )
