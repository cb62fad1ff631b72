"""docs/first-model.md is followed: its files are saved, its commands run, and none fails."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefleet.cli.demo.processes import reserve_port
from edgefleet.client.hub import HubClient
from edgefleet.protocol.rollout import Status

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "first-model.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL)
FILES = dict(re.findall(r"Save as `([\w.]+)`.*?```python\n(.*?)```", PAGE, re.DOTALL))
PORTS = ("8400", "8601", "8602", "8603")


def test_the_page_has_at_most_fifteen_commands() -> None:
    assert 10 < len(COMMANDS) <= 15
    assert sorted(FILES) == ["client.py", "train.py"]


@contextmanager
def reader(folder: Path, environ: Mapping[str, str]) -> Iterator[Callable[[str], str]]:
    """Runs commands in ``folder`` as the page has them. Ends what they started."""
    groups: list[subprocess.Popen[str]] = []

    def run(command: str) -> str:
        log = (folder / "output.txt").open("a+")
        begin = log.seek(0, os.SEEK_END)
        shell = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env={**os.environ, **environ}, stdout=log,
            stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
        groups.append(shell)
        code = shell.wait(240)
        log.seek(begin)
        said = log.read()
        assert code == 0, f"{command}\n{said}"
        return said

    try:
        yield run
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group.pid, sign)
            time.sleep(2)


@pytest.mark.long
def test_a_newcomer_follows_the_page(tmp_path: Path) -> None:
    held = [reserve_port() for _ in PORTS]
    ports = {port: str(one.getsockname()[1]) for port, one in zip(PORTS, held, strict=True)}

    def moved(text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: ports[found.group()], text)

    for name, text in FILES.items():
        (tmp_path / name).write_text(moved(text))
    environ = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EDGEFLEET_SERVE_LISTEN": f"127.0.0.1:{ports['8400']}",
        "EDGEFLEET_SERVE_CHECKIN_LISTEN": "127.0.0.1:0",
    }
    data = tmp_path / ".local" / "share" / "edgefleet" / "hub"
    said: dict[str, str] = {}
    with reader(tmp_path, environ) as run:
        for command in COMMANDS:
            said[command] = run(moved(command))
            if command.startswith("edgefleet serve"):
                wait_for((data / "hub.json").exists)  # "The hub prints the address"
                client = HubClient(f"http://127.0.0.1:{ports['8400']}",
                                   (data / "operator.token").read_text().strip())  # fmt: skip
            if command.startswith("for device"):
                wait_for(lambda hub=client: hub.fleet().online == 3)
            if command.startswith("python client.py"):
                time.sleep(5)  # a reader reads on, and the clients ask
        second, bad, first = client.rollouts().rollouts
        devices = client.devices().devices
    assert [one.status for one in (first, bad, second)] == [
        Status.COMPLETED,
        Status.REVERTED,
        Status.COMPLETED,
    ]
    assert bad.evidence.reasons == {"confidence_drop": 2}
    assert [one.release for device in devices for one in device.models] == ["2", "2", "2"]
    why = said["edgefleet rollout why"]
    assert "Mean confidence fell from" in why
    assert "Mean confidence fell from" in why


def wait_for(what: Callable[[], object], limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)
