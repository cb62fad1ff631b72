"""The places of a listener's connections: which one gives way when all are taken.

A connection is worth what it has shown: nothing, the credential of a device, or that of a person.
When the listener is full, the oldest connection of the least worth gives way to the new one, so
clients without a credential cannot keep people out. An address that has its share of the places
takes them from itself only.
"""

from collections import Counter
from enum import IntEnum
from itertools import islice
from typing import Final, Protocol

_EVERYBODY: Final = ""
_LOOKED_AT: Final = 256  # connections of devices, for one that has no request in progress


class Worth(IntEnum):
    """The credential that a connection has shown."""

    NOTHING = 0
    DEVICE = 1
    PERSON = 2


class Client(Protocol):
    """A connection of the listener. ``peer`` is its address."""

    peer: str

    def is_idle(self) -> bool:
        """Whether no request is in progress."""
        ...


class ConnectionPlaces:
    """At most ``most`` connections, of which ``of_peer`` are the share of one address."""

    def __init__(self, most: int, of_peer: int) -> None:
        self._most = most
        self._of_peer = of_peer
        self._worth: dict[Client, Worth] = {}
        self._of: Counter[str] = Counter()
        # By address and for all: the connections of a worth, the one with the oldest request first.
        self._lines: dict[tuple[str, Worth], dict[Client, None]] = {}

    def enter(self, client: Client) -> Client | None:
        """A new connection. Returns the one that must be closed, perhaps itself; None if none."""
        leaving = None
        if self._of[client.peer] >= self._of_peer:
            leaving = self._least(client.peer) or client
        elif len(self._worth) >= self._most:
            leaving = self._least(_EVERYBODY) or client
        if leaving is client:
            return client
        if leaving is not None:
            self.remove(leaving)
        self._of[client.peer] += 1
        self._stand(client, Worth.NOTHING)
        return leaving

    def remove(self, client: Client) -> None:
        """The connection has closed, or must. No effect if it has no place."""
        if client not in self._worth:
            return
        self._step_out(client)
        self._of[client.peer] -= 1
        if not self._of[client.peer]:
            del self._of[client.peer]

    def shown(self, client: Client, worth: Worth) -> None:
        """The connection has shown a credential. No effect if it has no place."""
        if client in self._worth:
            worth = max(worth, self._step_out(client))
            self._stand(client, worth)

    def _least(self, peer: str) -> Client | None:
        """The connection that gives way. One with a device's request in progress does not."""
        for client in self._lines.get((peer, Worth.NOTHING), {}):
            return client
        devices = islice(self._lines.get((peer, Worth.DEVICE), {}), _LOOKED_AT)
        return next((client for client in devices if client.is_idle()), None)

    def _stand(self, client: Client, worth: Worth) -> None:
        self._worth[client] = worth
        for peer in {_EVERYBODY, client.peer}:
            self._lines.setdefault((peer, worth), {})[client] = None

    def _step_out(self, client: Client) -> Worth:
        worth = self._worth.pop(client)
        for peer in {_EVERYBODY, client.peer}:
            line = self._lines[peer, worth]
            del line[client]
            if not line:
                del self._lines[peer, worth]
        return worth
