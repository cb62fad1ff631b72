"""Supported protocol versions."""

from typing import Final

from edgefleet.base.errors import DeviceError

PROTOCOL: Final = 3
OLDEST_SERVED: Final = 2  # the oldest version whose agents get releases
ONE_MODEL: Final = 2  # the newest version whose agents have one model
OLDEST: Final = 1  # the oldest version that may check in; its devices are shown as too old


def is_served(version: int) -> bool:
    """True for agents that get releases."""
    return OLDEST_SERVED <= version <= PROTOCOL


def has_one_model(version: int) -> bool:
    """True for agents that have one model. False for a version that is not known."""
    return OLDEST <= version <= ONE_MODEL


def check_protocol(version: int) -> None:
    """Raises DeviceError ``protocol_unsupported`` if ``version`` is not supported."""
    if not OLDEST <= version <= PROTOCOL:
        raise DeviceError(
            "protocol_unsupported",
            f"The peer speaks protocol {version}, this side {OLDEST} to {PROTOCOL}.",
            field="protocol",
        )
