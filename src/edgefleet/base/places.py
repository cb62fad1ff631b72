"""The connections of one listener: how many, which share of them a peer has, and a reserve.

A listener that is full, or whose peer has its share, still accepts a few connections for requests
that must always be answered, such as those for its health.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from edgefleet.base.errors import Overloaded


class Place(Enum):
    """The place that a connection has."""

    GENERAL = "general"
    RESERVED = "reserved"  # for urgent requests only
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Taken:
    """A place, and why it is no general one: None for GENERAL."""

    place: Place
    refusal: Overloaded | None = None


class Places:
    """Counts the open connections. ``of_peer`` 0 is no share, ``reserved`` 0 no reserve.

    A peer is the text of an address. A peer without an address (a Unix socket) has no share.
    """

    def __init__(self, connections: int, of_peer: int = 0, reserved: int = 0) -> None:
        self._free = connections
        self._connections = connections
        self._of_peer = of_peer
        self._reserve = reserved
        self._reserve_of_peer = (reserved + 1) // 2  # one peer cannot take the reserve either
        self._general: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # connections without a general place, by reason

    def acquire(self, peer: str) -> Taken:
        """A place for a new connection of ``peer``. Give one that is not NONE back to ``free``."""
        if self._free <= 0:
            refusal = Overloaded(
                "connections", f"All {self._connections} connections of the server are in use."
            )
        elif self._of_peer and peer and self._general[peer] >= self._of_peer:
            refusal = Overloaded(
                "peer_connections",
                f"The address {peer} has {self._general[peer]} connections, its share.",
                hint="Close connections that are idle, or raise the share of an address.",
            )
        else:
            self._free -= 1
            self._general[peer] += 1
            return Taken(Place.GENERAL)
        self.refused[refusal.reason] += 1
        left = self._reserve - self._reserved.total()
        if left > 0 and self._reserved[peer] < self._reserve_of_peer:
            self._reserved[peer] += 1
            return Taken(Place.RESERVED, refusal)
        return Taken(Place.NONE, refusal)

    def free(self, peer: str, place: Place) -> None:
        """The connection has closed."""
        counts = self._general if place is Place.GENERAL else self._reserved
        if place is Place.NONE:
            return
        if place is Place.GENERAL:
            self._free += 1
        counts[peer] -= 1
        if counts[peer] <= 0:
            del counts[peer]


def peer_of(peername: object) -> str:
    """The address of a peer, from the ``peername`` of a transport. Empty for a Unix socket."""
    if isinstance(peername, tuple) and peername and isinstance(peername[0], str):
        return peername[0]
    return ""
