"""Messages to systemd (sd_notify): the agent is ready, what it does, and that its loop runs.

The protocol is one datagram to the socket in ``NOTIFY_SOCKET``. Without that variable, nothing is
sent. The watchdog messages come from the loop that decides, so a loop that hangs is restarted.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

_BEATS: Final = 3  # watchdog messages in the time that systemd waits for one


class Notifier:
    """Sends to systemd. ``monotonic`` is a clock in seconds."""

    def __init__(self, environ: Mapping[str, str], monotonic: Callable[[], float]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._monotonic = monotonic
        self._beat_at = 0.0
        self._status = ""
        self.is_listening = bool(self._address)
        self.beat_s: float | None = None  # between two calls of ``alive``; None: no watchdog
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        if self._address and usec.isdecimal() and int(usec) and pid in ("", str(os.getpid())):
            self.beat_s = int(usec) / 1e6 / _BEATS

    def ready(self) -> None:
        """The agent has started: units that wait for it may start."""
        self._send("READY=1")

    def alive(self) -> None:
        """The loop runs. Sends at most one message in ``beat_s``."""
        if self.beat_s is not None and self._monotonic() >= self._beat_at:
            self._beat_at = self._monotonic() + self.beat_s / 2
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show ``text`` in ``systemctl status``. Sends only a change."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A supervisor that is gone, or full, must not end the agent.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.setblocking(False)
            channel.sendto(message.encode(), self._address)
