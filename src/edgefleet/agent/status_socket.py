"""The socket on which a running agent answers ``edgefleet agent status`` and ``health``.

It is an abstract Unix socket, named by the data folder: it needs no file, so it works on a disk
that cannot be written. Only the agent's user and root get an answer, and only from them a client
takes one.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.agent_status import AgentStatus
from edgefleet.agent.log import LOGGER
from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.protocol.wire import decode, encode

_BACKLOG: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


def socket_name(data_dir: Path) -> str:
    """The abstract address of the agent that uses this folder."""
    digest = sha256(os.fsencode(data_dir.resolve())).hexdigest()
    return f"\0edgefleet-agent-{digest[:32]}"


@contextlib.contextmanager
def answering(data_dir: Path, status: Callable[[], AgentStatus | None]) -> Generator[None]:
    """Answer in a thread of its own. ``status`` returns None if the agent's loop does not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(socket_name(data_dir))
    except OSError as error:  # the address is taken: that must not end the agent
        LOGGER.warning("`edgefleet agent status` gets no answer: %s.", error)
        listener.close()
        yield
        return
    listener.listen(_BACKLOG)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            with connection, contextlib.suppress(OSError):
                connection.settimeout(limits.STATUS_S)
                if _uid(connection) in (0, os.geteuid()) and (found := status()) is not None:
                    connection.sendall(encode(found))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        listener.close()
        thread.join(2 * limits.STATUS_S)  # the address is free once the thread is out of accept


def ask_status(data_dir: Path) -> AgentStatus | None:
    """The status of the agent that uses this folder. None if none answers."""
    data = bytearray()
    try:
        owner = data_dir.stat().st_uid
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(2 * limits.STATUS_S)
            channel.connect(socket_name(data_dir))
            if _uid(channel) not in (0, owner):
                return None
            while chunk := channel.recv(1 << 16):
                data += chunk
        return decode(data, AgentStatus, code="answer_malformed") if data else None
    except (OSError, EdgefleetError):
        return None


def ask_serving(data_dir: Path) -> str:
    """The answer of the serving process in a sentence, where no agent answers."""
    from edgefleet.agent.run_files import RunFiles  # noqa: PLC0415 - only without an agent
    from edgefleet.agent.supervisor import SOCKET  # noqa: PLC0415 - as above
    from edgefleet.base.network import HttpLink  # noqa: PLC0415 - as above
    from edgefleet.base.storage import FolderStorage  # noqa: PLC0415 - as above
    from edgefleet.protocol.serving import ServingStatus  # noqa: PLC0415 - as above

    if not data_dir.is_dir():
        return "No serving process answers."
    files = RunFiles(FolderStorage(data_dir))
    files.find(lambda: Path(files.locate(SOCKET)).exists())
    with contextlib.closing(HttpLink(f"unix:{files.locate(SOCKET)}")) as link:
        try:
            answer = link.request("GET", "/control/status", timeout_s=limits.STATUS_S)
            status = decode(answer.body, ServingStatus, code="answer_malformed")
        except (NetworkError, EdgefleetError):
            return "No serving process answers."
    ready = ", ".join(f"{one.model} {one.release}" for one in status.models if one.ready)
    return f"The serving process serves {ready or 'no release'}."


def _uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)
