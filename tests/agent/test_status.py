"""``edgefleet agent status`` and ``health``: what they say, their exit codes, and who may ask."""

import os
import socket
from pathlib import Path

import msgspec
import pytest

from edgefleet import __version__
from edgefleet.agent import status_socket
from edgefleet.agent.agent_status import FAILS_FROM, FAILS_WITHIN_S, AgentStatus, status_of
from edgefleet.agent.event import CheckInFailed, ServingProbed, TimerFired
from edgefleet.agent.main import main
from edgefleet.agent.status_socket import answering, ask_status
from edgefleet.agent.status_text import health_lines, status_lines
from support.agent_process import device
from support.agent_steps import check_in, installed
from support.agent_world import Device, offer, serving
from support.fake_hub import fake_hub


def status(device: Device, progress: str = "") -> AgentStatus:
    return status_of(
        device.state,
        device.now,
        version=__version__,
        device="cam-1",
        hub="http://hub:8400",
        progress=progress,
    )


def end(device: Device, times: int) -> None:
    """The serving process ends so often, and serves again."""
    for _ in range(times):
        device.hear(ServingProbed(status=None, alive=False, draw=0.5, ends=("SIGKILL",)))
        device.hear(ServingProbed(status=serving("1", pid=200), alive=True, draw=0.5))


def test_a_device_on_which_all_is_well_is_healthy() -> None:
    found = status(installed())
    assert health_lines(found) == ("healthy: Serves digits 1.",)
    assert status_lines(found) == (
        "device  cam-1",
        "hub     http://hub:8400, answers",
        f"agent   edgefleet {__version__}",
        "digits  serves release 1",
        "now     Serves digits 1.",
    )


def test_a_device_without_a_release_is_healthy() -> None:
    device = Device()
    device.boot(whole=())
    assert health_lines(status(device)) == ("healthy: No release is installed.",)


def test_serving_that_is_down_is_unhealthy_and_has_the_time() -> None:
    device = installed()
    device.now = 86_400.0
    device.hear(ServingProbed(status=None, alive=False, draw=0.5, ends=("SIGKILL",)))
    device.now += 30.0
    (line,) = health_lines(status(device))
    assert line == (
        "unhealthy: Serving is down: no release of digits is served. The serving process ended by "
        "itself once in the last hour (1x SIGKILL). (since 1970-01-02T00:00:00Z)"
    )


def test_a_process_that_ends_again_and_again_is_unhealthy_for_a_while() -> None:
    device = installed()
    end(device, FAILS_FROM - 1)
    assert status(device).problems == ()
    end(device, 1)
    assert "3x SIGKILL" in status(device).problems[0]
    device.now += FAILS_WITHIN_S
    assert status(device).problems == ()
    assert "3x SIGKILL" in status_lines(status(device))[-2], "the status still has it"


def test_a_hub_that_is_lost_is_shown_and_is_no_failure_of_the_device() -> None:
    device = installed()
    device.now = max(device.now, device.state.soft.checkin_at)
    device.hear(TimerFired(draw=0.5))
    sent = device.state.soft.sent
    assert sent is not None
    device.hear(CheckInFailed(seq=sent.seq, code="unreachable", detail="Refused.", draw=0.5))
    found = status(device)
    assert found.problems == ()
    assert found.hub_lost_since == device.now
    assert "unreachable: Refused" in status_lines(found)[1]


def test_the_next_release_is_shown_with_its_download() -> None:
    device = installed()
    check_in(device, offer("2"))
    assert "digits 2 downloads the manifest." in status(device).line


def test_a_running_agent_answers_and_another_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = status(installed())
    folder = ("--data-dir", str(tmp_path))
    with answering(tmp_path, lambda: found):
        assert ask_status(tmp_path) == found
        assert main(["health", *folder]) == 0
        assert main(["status", "--json", *folder]) == 0
        assert msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])["device"] == "cam-1"
        assert ask_status(tmp_path / "other") is None
    assert ask_status(tmp_path) is None
    assert main(["health", *folder]) == 1
    with answering(tmp_path, lambda: None):  # its loop hangs
        assert main(["health", *folder]) == 1
    unhealthy = msgspec.structs.replace(found, problems=("Serving is down.",))
    with answering(tmp_path, lambda: unhealthy):
        assert main(["health", *folder]) == 1
        assert main(["status", *folder]) == 0


def test_another_user_gets_no_answer_and_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = status(installed())
    other = os.geteuid() + 7
    monkeypatch.setattr(status_socket, "_uid", lambda _: other)
    with answering(tmp_path, lambda: found), socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(status_socket.socket_name(tmp_path))
        assert channel.recv(1 << 16) == b""
        assert ask_status(tmp_path) is None


def test_an_address_that_is_taken_ends_no_agent(tmp_path: Path) -> None:
    found, second = status(installed()), status(Device())
    with answering(tmp_path, lambda: found), answering(tmp_path, lambda: second):
        assert ask_status(tmp_path) == found


def test_a_real_agent_tells_systemd_and_whoever_asks(tmp_path: Path) -> None:
    with (
        fake_hub() as hub,
        device(tmp_path, hub) as (agent, _),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        hub.offline = True
        (tmp_path / "claim").write_text("claim-1\n")
        agent.identity = ("--claim-file", str(tmp_path / "claim"), *agent.identity[2:])
        agent.start(environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"})
        assert systemd.recv(4096) == b"READY=1", "a hub that is away must not fail the unit"
        heard = [systemd.recv(4096)]
        while not heard[-1].startswith(b"STATUS=The device is not enrolled yet: connection_lost"):
            heard.append(systemd.recv(4096))
        found = ask_status(agent.data)
        assert found is not None
        assert "not enrolled yet" in found.line
        hub.offline = False
        while heard[-1] != b"STATUS=No release is installed.":
            heard.append(systemd.recv(4096))
        found = ask_status(agent.data)
        assert found is not None
        assert (found.device, found.problems) == ("device", ())
        assert "Enrolled as device device." in agent.log()
        for _ in range(3):
            while systemd.recv(4096) != b"WATCHDOG=1":
                pass
        assert agent.stop() == 0
        assert ask_status(agent.data) is None
