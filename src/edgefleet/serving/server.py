"""The serving process: a listener for inference and a control socket for the agent."""

import asyncio
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.base.errors import OperatorError
from edgefleet.http1.limits import REFUSED, ConnectionLimits
from edgefleet.http1.server import listen
from edgefleet.protocol.fallback import FallbackSettings
from edgefleet.serving.bounds import Bounds
from edgefleet.serving.client_quota import ClientQuota
from edgefleet.serving.connection_bounds import within
from edgefleet.serving.control import Control
from edgefleet.serving.inference import Inferences
from edgefleet.serving.limits import CONTROL, INFERENCE, OTHER_FILES, STOP_S
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest, is_urgent
from edgefleet.serving.routes import render_error
from edgefleet.serving.run_marks import RunMarks

if TYPE_CHECKING:
    from edgefleet.serving.hybrid.door import Hybrid
    from edgefleet.serving.hybrid.grpc_question import HybridCalls


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Port 0 is any free port. Artifacts are loaded only from ``data_dir``, if it is set.

    Pages of ``origins`` may call from a browser, see ``Rest``.
    ``bounds`` hold for both protocols. ``grpc`` is the address of gRPC. None: it is not served, and
    takes no memory. ``fallback`` None: nothing leaves the device.
    """

    host: str
    port: int
    control_socket: Path
    data_dir: Path | None = None
    origins: tuple[str, ...] = ()
    grpc: tuple[str, int] | None = None
    fallback: FallbackSettings | None = None
    bounds: Bounds = field(default_factory=Bounds)


def read_address(text: str, field: str = "listen") -> tuple[str, int]:
    """Parse ``host:port`` or ``[v6]:port``. Raises OperatorError ``setting_invalid``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise OperatorError("setting_invalid", f"{text!r} is not HOST:PORT.", field=field)
    return host.strip("[]"), int(port)


def _stop_on_signal(
    signals: Collection[int], loop: asyncio.AbstractEventLoop, stop: asyncio.Event
) -> None:
    """Stop on a signal, and end this process STOP_S later.

    A thread of its own waits for the signal: a model may run on the event loop and never return.
    """
    signal.sigwait(signals)
    ending = threading.Timer(STOP_S, _end)
    ending.daemon = True
    ending.start()
    loop.call_soon_threadsafe(stop.set)


def _end() -> None:
    sys.stderr.write(f"A request to a model did not end within {STOP_S:g} s of the signal.\n")
    sys.stderr.flush()
    os._exit(1)


async def serve(
    settings: ServingSettings, signals: Collection[int], on_ready: Callable[[str], None]
) -> None:
    """Serve until one of ``signals``, then answer the requests in progress and return.

    The signals are blocked in all threads. ``on_ready`` is called with the url once both
    listeners are open. Raises OperatorError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_stop_on_signal, args=(signals, loop, stop), daemon=True).start()
    bounds = settings.bounds
    allow_files(bounds, protocols=1 if settings.grpc is None else 2)
    marks = RunMarks(settings.control_socket.with_suffix(".running"))
    models = ModelHost(settings.data_dir, marks, bounds)
    inferences = Inferences(models)
    quota = ClientQuota(bounds.client_rate, bounds.client_burst)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(models.close)
        hybrid = _hybrid(inferences, settings, stack)
        inference = await listen(
            Rest(
                models,
                hybrid or inferences,
                origins=settings.origins,
                samples=tuple if hybrid is None else hybrid.samples,
                quota=quota,
            ),
            host=settings.host,
            port=settings.port,
            limits=limits_of(bounds),
            render_error=render_error,
            room=models.bodies.room,
            urgent=is_urgent,
        )
        models.refused = [quota.refused, inference.places.refused]
        stack.push_async_callback(inference.close)
        grpc = ""
        if settings.grpc is not None:
            # Imported here: a process without gRPC does not need its memory.
            from edgefleet.serving.grpc.listener import listen_grpc  # noqa: PLC0415 - see above

            asked = inferences if hybrid is None else _calls(hybrid)
            calls = await listen_grpc(asked, *settings.grpc, bounds, quota)
            models.refused.append(calls.places.refused)
            stack.push_async_callback(calls.close)
            grpc = _address(settings.grpc[0], calls.port)
        url = f"http://{_address(settings.host, inference.port)}"
        control = await listen(
            Control(models, url, grpc), unix_path=settings.control_socket, limits=CONTROL
        )
        stack.push_async_callback(control.close)
        on_ready(url)
        await stop.wait()


def _hybrid(
    inferences: Inferences, settings: ServingSettings, stack: AsyncExitStack
) -> "Hybrid | None":
    """The inferences with a fallback, if one is set."""
    if settings.fallback is None:
        return None
    # Imported here: a process without a fallback does not need its memory.
    from edgefleet.serving.hybrid.door import Hybrid  # noqa: PLC0415 - see above

    hybrid = Hybrid(inferences, settings.fallback)
    stack.callback(hybrid.close)
    return hybrid


def _calls(hybrid: "Hybrid") -> "HybridCalls":
    from edgefleet.serving.hybrid.grpc_question import HybridCalls  # noqa: PLC0415 - as above

    return HybridCalls(hybrid)


def limits_of(bounds: Bounds) -> ConnectionLimits:
    """The limits of the REST listener."""
    return replace(
        within(INFERENCE, bounds),
        body_bytes=bounds.body_bytes,
        buffered_bytes=bounds.bodies_bytes,
    )


def allow_files(bounds: Bounds, protocols: int) -> None:
    """Allow this process as many open files as its connections and models need.

    Raises OperatorError ``setting_invalid`` if the system does not allow so many.
    """
    of_one = bounds.connections + bounds.reserved_connections + REFUSED
    wanted = protocols * of_one + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise OperatorError(
            "setting_invalid",
            f"{bounds.connections} connections need {wanted} open files; the system allows {hard}.",
            field="connections",
            hint="Allow fewer connections, or raise the limit of open files (LimitNOFILE).",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
