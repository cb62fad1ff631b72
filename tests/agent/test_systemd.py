"""Messages to systemd, on a real socket."""

import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from edgefleet.agent.systemd import Notifier


class Systemd:
    """The socket of a service manager, and a clock."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(5)
        self.environ = {"NOTIFY_SOCKET": path.replace("\0", "@")}
        self.now = 100.0

    def notifier(self, **more: str) -> Notifier:
        return Notifier({**self.environ, **more}, lambda: self.now)

    def heard(self, count: int) -> list[str]:
        """The messages so far, which must be ``count``."""
        found = [self.socket.recv(4096).decode() for _ in range(count)]
        self.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.socket.recv(4096)
        self.socket.settimeout(5)
        return found


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Systemd]:
    path = str(tmp_path / "notify")
    found = Systemd(path if request.param == "file" else f"\0edgefleet-test-{os.getpid()}")
    yield found
    found.socket.close()


def test_ready_status_and_stopping_are_sent_once(systemd: Systemd) -> None:
    notifier = systemd.notifier()
    notifier.ready()
    notifier.status("Serves digits 1.")
    notifier.status("Serves digits 1.")
    notifier.alive()
    notifier.stopping()
    assert systemd.heard(3) == ["READY=1", "STATUS=Serves digits 1.", "STOPPING=1"]


def test_the_watchdog_hears_of_the_loop_more_often_than_it_must(systemd: Systemd) -> None:
    notifier = systemd.notifier(WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))
    assert notifier.beat_s == 20.0
    for _ in range(61):
        notifier.alive()
        systemd.now += 1.0
    assert systemd.heard(7) == ["WATCHDOG=1"] * 7


def test_the_watchdog_of_another_process_is_not_ours(systemd: Systemd) -> None:
    assert systemd.notifier(WATCHDOG_USEC="60000000", WATCHDOG_PID="1").beat_s is None


def test_a_service_manager_that_is_gone_ends_nothing(systemd: Systemd, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, lambda: 0.0)
    notifier.ready()
    Notifier({}, lambda: 0.0).ready()
    assert systemd.heard(0) == []
