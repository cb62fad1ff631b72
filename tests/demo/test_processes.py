import os
import signal
import sys
from pathlib import Path

import pytest

from edgefleet.agent.supervisor import Supervisor
from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import InternalError
from edgefleet.base.storage import FolderStorage
from edgefleet.cli.demo.processes import Agent, Program, Programs
from support.stub_serving import SERVING, WANTED


def test_a_program_that_dies_ends_the_demo_with_the_end_of_its_log(tmp_path: Path) -> None:
    arguments = ["--hub", "nowhere", "--claims", str(tmp_path / "none"), "--trust", "x"]
    with Programs() as programs:
        program = Program(
            "fleet",
            "edgefleet.sim.load",
            [*arguments, "--field", "digits=x"],
            tmp_path,
            read_output=True,
        )
        programs.add(program)
        with pytest.raises(InternalError) as caught:
            program.line()
        with pytest.raises(InternalError):
            programs.check()
    assert "fleet exited with code 1" in caught.value.message
    assert "setting_invalid" in caught.value.message
    assert "fleet.log" in caught.value.message


def test_programs_are_ended_by_their_ids_the_newest_first(tmp_path: Path) -> None:
    ended: list[str] = []
    with Programs() as programs:
        for name in ("first", "second"):
            program = Program(name, "http.server", ["0", "--bind", "127.0.0.1"], tmp_path)
            programs.add(program)
            programs.callback(ended.append, name)
        programs.check()
    assert ended == ["second", "first"]
    with pytest.raises(InternalError, match="first exited with code -15"):
        programs.check()


def test_settings_for_other_commands_do_not_reach_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFLEET_SERVE_LISTEN", "nonsense")
    with Programs() as programs:
        options = ["serve", "--json", "--data-dir", str(tmp_path / "hub")]
        options += ["--listen", "127.0.0.1:0", "--checkin-listen", "127.0.0.1:0"]
        hub = Program("hub", "edgefleet.cli.main", options, tmp_path, read_output=True)
        programs.add(hub)
        assert b"http://127.0.0.1:" in hub.line()


def kill(pid: int) -> None:
    """Kill a child, and wait until it has ended. Its parent can still ask for its exit code."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_the_serving_process_of_an_agent_that_was_killed_is_ended_with_it(tmp_path: Path) -> None:
    agent = Agent(
        "edge", "generic_x86", hub="http://127.0.0.1:1", claim="none", trust=tmp_path / "trust",
        folder=tmp_path,
    )  # fmt: skip
    kill(agent.pid)
    command = (sys.executable, "-c", *SERVING)
    supervisor = Supervisor(FolderStorage(tmp_path / "edge"), command, SystemClock(), lambda: None)
    left = supervisor.apply(WANTED).pid
    try:
        agent.end()
        ended, status = os.waitpid(left, os.WNOHANG)
        assert (ended, os.waitstatus_to_exitcode(status)) == (left, -signal.SIGTERM)
    finally:
        supervisor.stop()
