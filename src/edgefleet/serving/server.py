"""The serving process: a listener for inference and a control socket for the agent."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefleet.base.errors import OperatorError
from edgefleet.http1.server import listen
from edgefleet.serving.control import Control
from edgefleet.serving.limits import CONTROL, INFERENCE
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference, render_error
from edgefleet.serving.run_marks import RunMarks


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Port 0 is any free port. Artifacts are loaded only from ``data_dir``, if it is set."""

    host: str
    port: int
    control_socket: Path
    data_dir: Path | None = None


def read_address(text: str) -> tuple[str, int]:
    """Parse ``host:port`` or ``[v6]:port``. Raises OperatorError ``setting_invalid``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise OperatorError("setting_invalid", f"{text!r} is not HOST:PORT.", field="listen")
    return host.strip("[]"), int(port)


async def serve(settings: ServingSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in progress and return.

    ``on_ready`` is called with the url once both listeners are open. Raises OperatorError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    models = ModelHost(settings.data_dir, RunMarks(settings.control_socket.with_suffix(".running")))
    inference = await listen(
        OpenInference(models),
        host=settings.host,
        port=settings.port,
        limits=INFERENCE,
        render_error=render_error,
        room=models.bodies.room,
    )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{shown}:{inference.port}"
    try:
        control = await listen(
            Control(models, url), unix_path=settings.control_socket, limits=CONTROL
        )
        try:
            on_ready(url)
            await stop.wait()
        finally:
            await control.close()
    finally:
        await inference.close()
        await models.close()
