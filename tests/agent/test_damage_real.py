"""Real agents with damaged files and without a hub: a client that asks all the time gets answers."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet.agent.link import CREDENTIAL
from edgefleet.agent.slots import POINTER, RESERVE, STATE
from edgefleet.agent.supervisor import LOG, MARKS, PID, SOCKET
from support.agent_process import AgentProcess, Publisher, device
from support.asking import Asker, Question, digits
from support.fake_hub import FakeHub, fake_hub
from support.own_files import copies
from support.tiny_models import classifier

Damage = Callable[[Path], None]


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_early(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 8])


def cut_late(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def one_byte_wrong(file: Path) -> None:
    data = bytearray(file.read_bytes() or b"?")
    data[len(data) // 2] ^= 0x20
    file.write_bytes(bytes(data))


def unreadable(file: Path) -> None:
    file.chmod(0)


def missing(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()
    (file / "lost+found").write_bytes(b"")


FILES = (
    *copies(STATE), *copies(POINTER), *copies(CREDENTIAL), "models/digits/a/manifest.json",
    "models/digits/a/golden.npz", RESERVE, LOG, PID, MARKS,
)  # fmt: skip
DAMAGES = (empty, cut_early, cut_late, one_byte_wrong, unreadable, missing, a_folder)
ALL = [(damage, (place,)) for place in FILES for damage in DAMAGES]
BOTH = [(damage, copies(name)) for name in (STATE, POINTER, CREDENTIAL) for damage in DAMAGES[:4]]
SOME = [
    (empty, copies(STATE)),
    (one_byte_wrong, copies(CREDENTIAL)),
    (a_folder, (STATE, POINTER, LOG, PID, MARKS, SOCKET, RESERVE)),
]


@pytest.fixture(scope="module")
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@dataclass
class Stopped:
    """A device on release 1 that has lost its power, a copy of its files, and what to ask it."""

    agent: AgentProcess
    publisher: Publisher
    pristine: Path
    question: Question

    def restore(self) -> None:
        """Make the files as they were."""
        shutil.rmtree(self.agent.data)
        shutil.copytree(self.pristine, self.agent.data)

    def power_off(self) -> None:
        """Kill both processes."""
        agent = self.agent
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()
        for pid in serving_of(agent.serve):
            os.kill(pid, signal.SIGKILL)


def serving_of(address: str) -> list[int]:
    """The serving processes for this address."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if address.encode() in words and b"edgefleet.serving" in words:
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def stopped(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Generator[Stopped]:
    folder = tmp_path_factory.mktemp("damage")
    with device(folder, hub) as (agent, publisher):
        models = {
            release: classifier(folder / f"asked-{release}.onnx", turn=sum(release.encode()))
            for release in ("1", "2")
        }
        publisher.offer("1")
        agent.start()
        hub.wait(lambda hub: ("1", "confirmed", "") in hub.kinds())
        found = Stopped(agent, publisher, folder / "copy", digits(models))
        found.power_off()
        hub.offer = None
        shutil.copytree(agent.data, folder / "copy", ignore=shutil.ignore_patterns("*.sock"))
        yield found
        found.power_off()


def check_ins(hub: FakeHub, more_than: int) -> bool:
    return len(hub.check_ins) > more_than


@pytest.mark.parametrize(
    ("damage", "places"),
    [
        *[pytest.param(*case, id=f"{case[0].__name__}-{case[1][0]}") for case in SOME],
        *[
            pytest.param(*case, id=f"{case[0].__name__}-{len(case[1])}-{case[1][0]}",
                         marks=pytest.mark.long)
            for case in (*ALL, *BOTH)
        ],
    ],
)  # fmt: skip
def test_a_device_with_damaged_files_serves_without_a_hub_and_comes_back_with_it(
    hub: FakeHub,
    stopped: Stopped,
    damage: Damage,
    places: tuple[str, ...],
) -> None:
    agent, question = stopped.agent, stopped.question
    stopped.restore()
    for place in places:
        damage(agent.data / place)
    hub.offline = True
    agent.start()
    try:
        agent.wait_answer()
        with Asker(agent.serve, question) as asker:
            asker.wait_for_answers(20)
            heard, hub.offline = len(hub.check_ins), False
            hub.claims = {"claim-1"}  # if its identity is lost, an operator gives it a claim
            hub.wait(lambda hub: check_ins(hub, heard))
            asker.wait_for_answers(20)
        assert (asker.faults, set(asker.answers)) == ([], {"1"})
        assert agent.process is not None
        assert agent.process.poll() is None, agent.log()
    finally:
        stopped.power_off()


def test_a_device_with_a_used_claim_and_no_credential_serves_on(
    hub: FakeHub, stopped: Stopped
) -> None:
    agent, question = stopped.agent, stopped.question
    stopped.restore()
    for place in copies(CREDENTIAL):
        (agent.data / place).unlink()
    hub.claims.clear()
    hub.offline = False
    agent.start()
    try:
        agent.wait_answer()
        with Asker(agent.serve, question) as asker:
            asker.wait_for_answers(10)
            wait(lambda: "claim_used" in agent.log())
            heard = len(hub.check_ins)
            hub.claims = {"claim-1"}
            hub.wait(lambda hub: check_ins(hub, heard))
        assert asker.faults == []
    finally:
        stopped.power_off()


def wait(what: Callable[[], object], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def can_mount(folder: Path) -> bool:
    """Make the folder a mount, so that it can become read-only."""
    made = subprocess.run(
        ["mount", "--bind", str(folder), str(folder)], check=False, capture_output=True
    )
    return made.returncode == 0


def remount(folder: Path, how: str) -> None:
    """Change the mount, once no file of it is being written."""
    command = ["mount", "-o", f"remount,bind,{how}", str(folder)]
    wait(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0)


def fault(hub: FakeHub) -> str | None:
    """The fault of the disk that the device reported last."""
    said = [one.facts.disk_fault for one in hub.check_ins if one.facts is not None]
    return said[-1] if said else None


def test_a_read_only_disk_ends_no_inference_and_is_reported(hub: FakeHub, stopped: Stopped) -> None:
    agent = stopped.agent
    stopped.restore()
    hub.offline = False
    if not can_mount(agent.data):
        pytest.skip("this user may not mount")
    try:
        remount(agent.data, "ro")
        agent.start()
        agent.wait_answer()
        with Asker(agent.serve, stopped.question) as asker:
            hub.wait(lambda hub: fault(hub) == "disk_readonly")
            stopped.publisher.offer("2")
            hub.wait(lambda hub: ("2", "deferred", "disk_readonly") in hub.kinds())
            agent.kill()  # it comes back: it needs no file that is written, not even a lock
            agent.start()
            asker.wait_for_answers(20)
            heard = len(hub.check_ins)
            hub.wait(lambda hub: len(hub.check_ins) > heard)
        assert (asker.faults, set(asker.answers)) == ([], {"1"})
        for pid in serving_of(agent.serve):
            os.kill(pid, signal.SIGKILL)
        agent.wait_answer()
        with Asker(agent.serve, stopped.question) as asker:
            remount(agent.data, "rw")
            hub.wait(lambda hub: fault(hub) == "")
            hub.wait(lambda hub: ("2", "confirmed", "") in hub.kinds())
            remount(agent.data, "ro")  # under a running agent
            stopped.publisher.offer("1", rollout="ro-again")
            hub.wait(lambda hub: fault(hub) == "disk_readonly")
            remount(agent.data, "rw")
            hub.wait(lambda hub: [kind for _, kind, _ in hub.kinds()].count("confirmed") == 3)
        assert (asker.faults, set(asker.answers)) == ([], {"1", "2"})
        assert "Traceback" not in agent.log()
        assert "cannot be written (Read-only file system)." in agent.log()
    finally:
        remount(agent.data, "rw")
        stopped.power_off()
        subprocess.run(["umount", "-l", str(agent.data)], check=True)
