"""Messages about a hub that was restored from an older copy."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edgefleet.protocol.device import Facts
from edgefleet.protocol.wire import Wire


class AcceptRestored(Wire, frozen=True, kw_only=True):
    """``person`` accepts the state of the hub: devices ahead of it are offered releases again."""

    person: Annotated[str, Meta(min_length=1, max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""


class AcceptedRestored(Wire, frozen=True, kw_only=True):
    """``devices`` were ahead of the hub. ``unknown`` devices may enrol again by themselves."""

    devices: int
    unknown: tuple[str, ...] = ()


class ReenrolRequest(Wire, frozen=True, kw_only=True):
    """Asks for a credential with one that this hub made, and of whose device it has no record."""

    protocol: int
    facts: Facts
    labels: dict[str, str] = msgspec.field(default_factory=dict)
