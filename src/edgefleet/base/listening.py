"""Sockets that listen, with a typed error for an address that cannot be used."""

import errno
import socket

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
