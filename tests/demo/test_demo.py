"""The demo end to end, with a small fleet."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgefleet.cli.demo.story import STORY, waves_of

KEYS = {"rollouts", "devices", "exposed_to_bad", "inference", "checks", "seconds", "hub"}
DEVICES = 60


@dataclass
class Ended:
    code: int
    said: dict[str, Any]
    told: str

    def failed(self) -> set[str]:
        return {check["name"] for check in self.said["checks"] if not check["holds"]}


def demo(*options: str) -> Ended:
    with subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli.main", "demo", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            out, told = child.communicate(timeout=340)
        except subprocess.TimeoutExpired:
            child.terminate()  # it ends its child processes
            out, told = child.communicate(timeout=60)
    assert out, told
    return Ended(child.returncode, json.loads(out.splitlines()[-1]), told)


def programs_of(folder: str) -> list[str]:
    """Command lines of all processes that contain the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if folder in command:
                found.append(command.replace("\0", " "))
    return found


@pytest.mark.parametrize(
    ("devices", "percents"),
    [(1003, [1, 10, 100]), (153, [7, 10, 100]), (23, [44, 100]), (4, [100])],
)
def test_the_first_wave_is_large_enough_for_a_verdict(devices: int, percents: list[float]) -> None:
    assert [wave.percent for wave in waves_of(STORY[1], devices)] == percents
    installs = [chapter for chapter in STORY if chapter.first_install]
    assert [chapter.name for chapter in installs] == ["digits 1", "parity 1"]
    for chapter in installs:
        assert [wave.percent for wave in waves_of(chapter, devices)] == [100]


@pytest.mark.slow
def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    ended = demo("--devices", str(DEVICES), "--data-dir", str(folder))
    assert ended.code == 0, ended.told
    said = ended.said
    assert set(said) == KEYS
    assert [
        tuple(map(rollout.get, ("model", "release", "verdict"))) for rollout in said["rollouts"]
    ] == [
        ("digits", "1", "completed"),
        ("digits", "2", "completed"),
        ("digits", "3", "reverted"),
        ("parity", "1", "completed"),
        ("digits", "4", "refused"),
    ]
    assert [wave["percent"] for wave in said["rollouts"][1]["waves"]] == [16, 100]
    assert said["devices"]["total"] == DEVICES + 3
    online = said["devices"]["on_release"]
    assert {model: set(releases) for model, releases in online.items()} == {
        "digits": {"2"},
        "parity": {"1"},
    }
    real = said["devices"]["real"]
    assert set(real) == {"edge-x86", "edge-jetson", "edge-pi"}
    assert all(served == {"digits": "2", "parity": "1"} for served in real.values())
    assert 0 < said["exposed_to_bad"] <= said["rollouts"][2]["waves"][-1]["cut"]
    assert said["rollouts"][4]["waves"][-1]["exposed"] == 0
    digits, parity = (said["inference"]["models"][model] for model in ("digits", "parity"))
    assert min(digits["requests"], parity["requests"]) > 0
    assert said["inference"]["requests"] == digits["requests"] + parity["requests"]
    assert said["inference"]["failed"] == digits["failed"] == parity["failed"] == 0
    assert digits["accuracy"]["2"] > digits["accuracy"]["1"]
    assert ended.failed() == set()
    assert programs_of(str(folder)) == []
    assert (folder / "logs" / "hub.log").exists()


FOUND_BY = {
    "gate": {"digits_3_reverted", "caught_early", "nobody_on_bad"},
    "bake": {"digits_2_baked"},
    "serving": {"no_request_to_digits_failed", "no_request_to_parity_failed"},
    "scope": {"models_side_by_side", "no_request_to_parity_failed"},
    "displace": {"models_side_by_side", "no_request_to_digits_failed"},
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_planted_fault_makes_the_demo_fail(fault: str) -> None:
    ended = demo("--devices", str(DEVICES), "--break", fault)
    assert ended.code == 1
    assert ended.failed() >= FOUND_BY[fault]


def test_a_demo_whose_port_is_taken_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        ended = demo("--devices", "20", "--listen", f"{host}:{port}")
    assert (ended.code, ended.said["code"], ended.said["field"]) == (1, "address_in_use", "listen")


def test_a_demo_that_cannot_listen_where_it_was_told_says_so() -> None:
    ended = demo("--devices", "20", "--listen", "nowhere")
    assert (ended.code, ended.said["code"], ended.said["field"]) == (2, "setting_invalid", "listen")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_demo_that_is_stopped_ends_all_that_it_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "d"
    options = ["--devices", "20", "--data-dir", str(folder)]
    with subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli.main", "demo", "--json", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        while "are enrolled" not in child.stderr.readline():
            assert child.poll() is None, "it ended too soon"
        assert len(programs_of(str(folder))) >= 5
        child.send_signal(number)
        child.stderr.read()
        assert child.wait(60) == 130
    assert programs_of(str(folder)) == []
