"""A hub as a process: both listeners, the loop, and a graceful shutdown."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

import uvicorn
from starlette.routing import BaseRoute

from edgefleet import __version__
from edgefleet.base.errors import OperatorError
from edgefleet.http1.limits import BACKLOG, ConnectionLimits
from edgefleet.http1.server import Listener, listen
from edgefleet.hub.api import create_app
from edgefleet.hub.datadir import Reachable
from edgefleet.hub.graceful_shutdown import GracefulShutdown
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import (
    CHECKIN_BODY_BYTES,
    CHECKIN_CONNECTIONS,
    CHECKIN_IDLE_S,
    DOWNLOAD_FILES,
    DOWNLOADS_AT_ONCE,
    GRACEFUL_STOP_S,
    OPERATOR_CONNECTIONS,
    OPERATOR_WRITE_S,
    PEER_SHARE,
    RESERVED_FILES,
)
from edgefleet.hub.settings import Address, HubSettings
from edgefleet.hub.uvicorn_limits import bounded_to

RoutesFor = Callable[[Hub], Sequence[BaseRoute]]


async def serve(
    settings: HubSettings,
    *,
    routes_for: RoutesFor = lambda _hub: (),
    on_ready: Callable[[Hub, Reachable], None] = lambda _hub, _reachable: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a hub until ``stop`` is set, or until SIGTERM or SIGINT (in the main thread).

    ``on_ready`` is called when both listeners accept requests and ``hub.json`` has their addresses.
    Before that, raises OperatorError ``address_in_use``, ``data_dir_in_use``, ``setting_invalid``
    or ``store_foreign``.
    """
    stop = stop or asyncio.Event()
    hub = await Hub.open(settings)
    hub.downloads.most = downloads_at_once()
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_signals(stop))
            last = hub.folder.reachable()
            operators = stack.enter_context(_bound(settings, last))
            checkins = await _listen(hub, last)
            stack.push_async_callback(checkins.close)
            reachable = _announce(hub, operators, checkins)
            await _run(hub, operators, routes_for(hub), lambda: on_ready(hub, reachable), stop)
    finally:
        await hub.close()


async def _run(
    hub: Hub,
    operators: socket.socket,
    routes: Sequence[BaseRoute],
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Run until ``stop`` is set, or until the server or the loop ends with an error."""
    app = GracefulShutdown(create_app(hub, routes))
    server = _Server(
        uvicorn.Config(
            app,
            http=bounded_to(operator_connections()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(GRACEFUL_STOP_S),
        )
    )
    serving = asyncio.create_task(server.serve([operators]))
    ticking = asyncio.create_task(hub.loop.run(hub.settings.tick_s))
    stopping = asyncio.create_task(stop.wait())
    hub.hooks.start()
    ready()
    try:
        done, _ = await asyncio.wait(
            {serving, ticking, stopping}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
    finally:
        app.end()
        server.should_exit = True
        for task in (ticking, stopping):
            task.cancel()
        await asyncio.gather(serving, ticking, stopping, return_exceptions=True)


class _Server(uvicorn.Server):
    """A server without signal handlers: ``serve`` installs them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGTERM, signal.SIGINT)
    for number in wanted:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


def _announce(hub: Hub, operators: socket.socket, checkins: Listener) -> Reachable:
    """Write ``hub.json``. Both sockets must already accept connections."""
    port: int = operators.getsockname()[1]
    address = replace(Address.parse(hub.settings.listen, field="listen"), port=port)
    checkin = Address.parse(hub.settings.checkin_listen, field="checkin_listen")
    checkin = replace(checkin, port=checkins.port)
    hub.set_checkin_address(checkin)
    here = "127.0.0.1"
    reachable = Reachable(
        url=address.url(here if address.any_host else None),
        checkin_url=hub.checkin_url(here),
        port=port,
        checkin_port=checkins.port,
        pid=os.getpid(),
        version=__version__,
    )
    hub.folder.announce(reachable)
    return reachable


def checkin_limits() -> ConnectionLimits:
    """Limits of the check-in listener."""
    others = operator_connections() + DOWNLOAD_FILES * downloads_at_once()
    most = max(1, min(_files() - others, CHECKIN_CONNECTIONS))
    return ConnectionLimits(
        body_bytes=CHECKIN_BODY_BYTES,
        idle_s=CHECKIN_IDLE_S,
        connections=most,
        peer_connections=max(1, int(most * PEER_SHARE)),
    )


def operator_connections() -> int:
    """Connection limit of the main listener: at most a quarter of the open files."""
    return max(1, min(_files() // 4, OPERATOR_CONNECTIONS))


def downloads_at_once() -> int:
    """Limit of downloads in progress: half of the connections of the main listener."""
    return max(1, min(operator_connections() // 2, DOWNLOADS_AT_ONCE))


def _files() -> int:
    """Open files for connections and downloads. Raises the soft limit of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CHECKIN_CONNECTIONS + OPERATOR_CONNECTIONS + RESERVED_FILES
    wanted += DOWNLOAD_FILES * DOWNLOADS_AT_ONCE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (wanted if soft == resource.RLIM_INFINITY else soft) - RESERVED_FILES


async def _listen(hub: Hub, last: Reachable | None) -> Listener:
    address = Address.parse(hub.settings.checkin_listen, field="checkin_listen")
    open_on = partial(
        listen,
        hub.device_plane,
        host=address.host,
        limits=checkin_limits(),
        quick=hub.device_plane.quick,
    )
    if address.port == 0 and last is not None:
        with contextlib.suppress(OperatorError):  # another program uses the port now
            return await open_on(port=last.checkin_port)
    return await open_on(port=address.port)


@contextlib.contextmanager
def _bound(settings: HubSettings, last: Reachable | None) -> Generator[socket.socket]:
    """The listening socket of the main listener. Raises OperatorError."""
    address = Address.parse(settings.listen, field="listen")
    bound = None
    if address.port == 0 and last is not None:
        with contextlib.suppress(OperatorError):  # another program uses the port now
            bound = _bind(replace(address, port=last.port))
    bound = bound or _bind(address)
    try:
        yield bound
    finally:
        bound.close()


def _bind(address: Address) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise OperatorError(
            "setting_invalid",
            f"{address.host!r} is not an address of this machine.",
            field="listen",
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit it: also an answer that fits the buffers must be read.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(OPERATOR_WRITE_S * 1000))
        bound.bind(where)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        name = f"{address.host}:{address.port}"
        if error.errno == errno.EADDRINUSE:
            raise OperatorError(
                "address_in_use", f"Another program listens on {name}.", field="listen"
            ) from error
        raise OperatorError(
            "setting_invalid", f"Cannot listen on {name}: {error.strerror}.", field="listen"
        ) from error
    return bound
