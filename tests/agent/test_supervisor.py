"""Supervision of a serving process that fails to start, hangs, or is a foreign process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from edgefleet.agent import limits
from edgefleet.agent.supervisor import MARKS, PID, Supervisor
from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, OperatorError
from edgefleet.base.exits import exit_code
from edgefleet.base.storage import FolderStorage
from edgefleet.protocol.run_marks import record
from edgefleet.protocol.serving import ServingStatus
from support.agent_world import serving
from support.old_serving import old_serving, old_status
from support.stub_serving import DEAD, DEAF, LATE, SERVING, WANTED


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


@pytest.fixture
def made(storage: FolderStorage) -> Generator[list[Supervisor]]:
    supervisors: list[Supervisor] = []
    yield supervisors
    for supervisor in supervisors:
        supervisor.stop()


def supervise(
    storage: FolderStorage, made: list[Supervisor], *command: str, ended: threading.Event
) -> Supervisor:
    supervisor = Supervisor(storage, (sys.executable, "-c", *command), SystemClock(), ended.set)
    made.append(supervisor)
    return supervisor


def test_a_process_that_ends_at_once_is_reported_with_its_last_words(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    supervisor = supervise(storage, made, "raise SystemExit('no runtime')", ended=threading.Event())
    with pytest.raises(DeviceError, match="The serving process ended with 1: no runtime"):
        supervisor.apply(WANTED)
    assert supervisor.status() == (None, False)


def test_another_agent_adopts_the_living_process_and_hears_of_its_end(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    first = supervise(storage, made, *SERVING, ended=threading.Event())
    started = first.apply(WANTED)
    ended = threading.Event()
    second = supervise(storage, made, "raise SystemExit('not started')", ended=ended)
    assert second.status() == (started, True)
    assert second.apply(WANTED).pid == started.pid
    os.kill(started.pid, 9)
    assert ended.wait(60)
    assert first.status() == (None, False)
    assert second.status() == (None, False)


def mark(storage: FolderStorage, *models: str) -> None:
    """Write the marks that a serving process leaves behind that ended while these models ran."""
    storage.write(MARKS, b"".join(b"\1" + record(model)[1:] for model in models))


def test_the_models_that_ran_when_the_process_ended_are_named_once(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    ended = threading.Event()
    supervisor = supervise(storage, made, *SERVING, ended=ended)
    mark(storage, "stale")
    assert supervisor.ran() == (), "it ended before this agent began"
    pid = supervisor.apply(WANTED).pid
    assert supervisor.ran() == ()
    mark(storage, "digits")
    os.kill(pid, 9)
    assert ended.wait(60)
    assert supervisor.status() == (None, False)
    assert supervisor.ran() == ("digits",)
    assert supervisor.ran() == ()


def test_the_models_that_ran_are_named_although_the_process_was_started_again(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    pid = supervisor.apply(WANTED).pid
    mark(storage, "a", "b")
    os.kill(pid, 9)
    assert supervisor.apply(WANTED).pid != pid
    assert supervisor.ran() == ("a", "b")


def test_the_end_of_a_worker_is_noticed(storage: FolderStorage, made: list[Supervisor]) -> None:
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mine = msgspec.structs.replace(serving("1").models[0], worker=worker.pid)
        status = msgspec.json.encode(ServingStatus(pid=1, models=(mine,))).decode()
        ended = threading.Event()
        supervisor = supervise(storage, made, SERVING[0], status, ended=ended)
        supervisor.apply(WANTED)
        worker.kill()
        assert ended.wait(60)
    finally:
        worker.kill()
        worker.wait()


def test_a_process_that_lives_but_does_not_answer_is_replaced(
    storage: FolderStorage, made: list[Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    before = supervisor.apply(WANTED)
    Path(storage.locate("serving.sock")).unlink()
    assert supervisor.status() == (None, True)
    after = supervisor.apply(WANTED)
    assert after.pid != before.pid
    assert not Path(f"/proc/{before.pid}").exists()


def test_a_process_with_an_older_control_api_is_replaced_and_blamed_on_no_model(
    storage: FolderStorage, made: list[Supervisor], tmp_path: Path
) -> None:
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    with old_serving(tmp_path, 0, old_status("1")) as old:
        mark(storage, "digits")
        assert supervisor.status() == (None, True)
        assert supervisor.apply(WANTED).pid != old.pid
        assert old.wait(30) == -signal.SIGTERM
    assert supervisor.ran() == ()


def test_one_answer_that_comes_too_late_ends_nothing(
    storage: FolderStorage, made: list[Supervisor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "CONTROL_S", 1.0)
    late = tmp_path / LATE
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    before = supervisor.apply(WANTED)
    late.touch()
    assert supervisor.apply(WANTED).pid == before.pid
    assert not late.exists()


@pytest.mark.parametrize(
    ("how", "said"), [(DEAF, "timeout"), (DEAD, "answered no status, 3 times")]
)
def test_a_process_that_does_not_answer_an_apply_is_ended_within_its_bound(
    storage: FolderStorage,
    made: list[Supervisor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
    said: str,
) -> None:
    monkeypatch.setattr(limits, "CONTROL_S", 0.5)
    monkeypatch.setattr(limits, "ACTIVATE_S", 60.0 if how == DEAD else 2.0)
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    before = supervisor.apply(WANTED)
    mark(storage, "digits")
    (tmp_path / how).touch()
    with pytest.raises(NetworkError, match=said):
        supervisor.apply(WANTED)
    assert not Path(f"/proc/{before.pid}").exists()
    assert (supervisor.ran(), supervisor.hung()) == (("digits",), True)
    (tmp_path / how).unlink()
    assert supervisor.apply(WANTED).pid != before.pid
    assert (supervisor.ran(), supervisor.hung()) == ((), False)


def test_a_process_that_is_started_anew_blames_no_model(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    before = supervisor.apply(WANTED)
    mark(storage, "digits")
    assert supervisor.apply(msgspec.structs.replace(WANTED, anew=True)).pid != before.pid
    assert (supervisor.ran(), supervisor.hung()) == ((), False)


def test_a_stop_does_not_wait_for_an_apply(
    storage: FolderStorage, made: list[Supervisor], tmp_path: Path
) -> None:
    supervisor = supervise(storage, made, *SERVING, ended=threading.Event())
    pid = supervisor.apply(WANTED).pid
    (tmp_path / DEAF).touch()
    failed = threading.Event()

    def apply() -> None:
        with pytest.raises(EdgefleetError):
            supervisor.apply(WANTED)
        failed.set()

    threading.Thread(target=apply, daemon=True).start()
    supervisor.kill()
    assert failed.wait(30)
    assert supervisor.status() == (None, False)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether the process runs: one that has ended may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_only_has_the_number_of_ours_is_left_alone(
    storage: FolderStorage, made: list[Supervisor]
) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        storage.write(PID, f"{stranger.pid} 12345".encode())
        supervisor = supervise(storage, made, "", ended=threading.Event())
        assert supervisor.status() == (None, False)
        supervisor.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


FIRST_THREAD_ENDS_BEFORE_THE_OTHER = """
import os, signal, sys, threading, time, ctypes
def end():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=end).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit of this thread
"""


def test_the_exit_code_is_known_although_a_thread_outlives_the_first() -> None:
    command = [sys.executable, "-c", FIRST_THREAD_ENDS_BEFORE_THE_OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        while ") Z " not in Path(f"/proc/{child.pid}/stat").read_text():
            time.sleep(0.01)
        assert child.poll() is None  # dead for /proc, but not yet for its parent
        threading.Timer(0.2, child.stdin.close).start()
        assert exit_code(child, 30.0) == -signal.SIGKILL


def test_a_folder_whose_path_is_too_long_for_a_socket_is_a_wrong_setting(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / ("x" * 100))
    with pytest.raises(OperatorError) as wrong:
        Supervisor(storage, ("true",), SystemClock(), lambda: None)
    assert (wrong.value.code, wrong.value.field) == ("setting_invalid", "data_dir")
