"""Which protocol versions can speak to each other."""

from typing import Final

from edgefleet.base.errors import DeviceError

PROTOCOL: Final = 2
OLDEST: Final = 1  # two versions back, once there are that many
ASKS_FOR_LEAVE: Final = 2  # the first whose agents start only when the hub has acknowledged it


def check_protocol(version: int) -> None:
    """Raise DeviceError ``protocol_unsupported`` when ``version`` is none that we speak."""
    if not OLDEST <= version <= PROTOCOL:
        raise DeviceError(
            "protocol_unsupported",
            f"The peer speaks protocol {version}, this side {OLDEST} to {PROTOCOL}.",
            field="protocol",
        )
