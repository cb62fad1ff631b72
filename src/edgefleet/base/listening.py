"""Servers: sockets that listen, with typed errors for their addresses, and the end of a server."""

import asyncio
import errno
import socket
from collections.abc import Collection
from typing import Protocol

from edgefleet.base.errors import OperatorError


def tcp_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises OperatorError ``address_in_use`` or ``setting_invalid``."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
    except OSError as error:
        raise OperatorError(
            "setting_invalid", f"{host!r} is not an address of this machine.", field="listen"
        ) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bind(listening, address, f"{host}:{port}")
    return listening


def bind(listening: socket.socket, address: "tuple[object, ...] | str", name: str) -> None:
    """Bind a socket, or close it. Raises OperatorError, as ``tcp_socket``."""
    try:
        listening.bind(address)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OperatorError(
                "address_in_use", f"Another program listens on {name}.", field="listen"
            ) from error
        raise OperatorError(
            "setting_invalid",
            f"Cannot listen on {name}: {error.strerror or error}.",
            field="listen",
        ) from error


class Connection(Protocol):
    """An open connection of a server."""

    def drain(self) -> None:
        """Close once the requests in progress are answered."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


async def drain(
    connections: Collection[Connection], empty: asyncio.Event, timeout_s: float
) -> None:
    """Close all connections, which leave ``connections`` then. Aborts them after ``timeout_s``.

    ``empty`` is set once no connection is left.
    """
    for connection in tuple(connections):
        connection.drain()
    if connections:
        try:
            await asyncio.wait_for(empty.wait(), timeout_s)
        except TimeoutError:
            for connection in tuple(connections):
                connection.abort()
            await empty.wait()
