"""Serving that ends after the confirmation, on a real hub: each place says so, and since when."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from edgefleet.agent.agent_status import FAILS_FROM
from edgefleet.base.clock import SystemClock
from edgefleet.base.network import HttpLink
from edgefleet.client.hub import HubClient
from edgefleet.client.watch import Observed, watch
from edgefleet.protocol.operator import ClaimRequest, DeviceView
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.serving_health import OUT_OF_MEMORY
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess
from support.bad_requests import LIMIT_MIB, PLANTED, Client
from support.cgroup import memory_group
from support.command_line import CommandLine
from support.tiny_releases import publish, tiny_release

KILLS = 7
OOM_WORDS = "SIGKILL (out of memory)"
GATE = GateSpec(min_sample=1, soak_s=0.1, confirm_after_s=0.5, silence_s=60.0)


@dataclass
class ServedHub:
    """``edgefleet serve``, with its page."""

    data_dir: Path
    url: str

    @property
    def token(self) -> str:
        return (self.data_dir / "operator.token").read_text().strip()

    def client(self) -> HubClient:
        return HubClient(self.url, self.token)

    def read(self, path: str) -> str:
        """A page, or the metrics, as an operator gets it."""
        form = {"name": "operator", "secret": self.token, "next": "/"}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=60)) as page:
            page.request("POST", "/login", urlencode(form), kind)
            entered = page.getresponse()
            cookie = (entered.headers["Set-Cookie"] or "").partition(";")[0]
        headers = {"Authorization": f"Bearer {self.token}", "Cookie": cookie}
        with closing(HttpLink(self.url)) as link:
            answer = link.request("GET", path, headers=headers)
        assert answer.status == 200, answer
        return answer.body.decode()


@pytest.fixture
def hub(tmp_path: Path) -> Generator[ServedHub]:
    command = [sys.executable, "-m", "edgefleet.cli.main", "serve", "--json", "--tick", "50ms"]
    command += ["--interval", "500ms", "--data-dir", str(tmp_path / "hub")]
    command += ["--listen", "127.0.0.1:0", "--checkin-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ServedHub(tmp_path / "hub", json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def stack() -> Generator[ExitStack]:
    with ExitStack() as ending:
        yield ending


def on_release_1(
    folder: Path,
    hub: ServedHub,
    stack: ExitStack,
    *,
    fault: str = "",
    description: str = "",
    environ: dict[str, str] | None = None,
) -> AgentProcess:
    """A device that has confirmed release 1 of a completed rollout."""
    client, key = hub.client(), PublisherKey.generate()
    publish(client, key, tiny_release(folder / "releases", "1", description=description))
    (claim,) = client.claim(ClaimRequest(count=1)).claims
    agent = AgentProcess(folder, hub, key, claim=claim, name="cam-1", fault=fault)
    stack.callback(agent.end)
    agent.start(environ=environ)
    agent.wait(lambda state: state.facts_known)
    waves = (WaveSpec(percent=100),)
    spec = RolloutSpec(model="digits", release="1", waves=waves, gate=GATE, bake_s=0)
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START, Command())
    for seen in watch(client, rollout, clock=SystemClock(), timeout_s=90.0, every_s=0.1):
        last = seen.view.status if isinstance(seen, Observed) else None
    assert last is Status.COMPLETED
    return agent


@dataclass
class Checkins:
    """``most`` check-ins of the device, counted from the start of the hub."""

    hub: ServedHub
    most: int

    def have_come(self) -> bool:
        return checkins(self.hub) >= self.most


def checkins(hub: ServedHub) -> int:
    """The check-ins that the hub has answered."""
    found = re.findall(
        r'^edgefleet_checkins_total\{result="ok"\} (\d+)$', hub.read("/metrics"), re.MULTILINE
    )
    return int(found[0])


def wait_for(
    client: HubClient,
    what: Callable[[DeviceView], bool],
    timeout_s: float = 90.0,
    within: Checkins | None = None,
) -> DeviceView:
    """The device, once ``what`` is true of it: not later than ``within`` these check-ins."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        late = within is not None and within.have_come()
        if what(view := client.device("cam-1")):
            return view
        assert not late, f"not known after two check-ins: {view}"
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s: {client.device('cam-1')}")


def ends(view: DeviceView) -> dict[str, int]:
    """The ends of serving, by cause."""
    return {} if view.serving is None else {one.cause: one.count for one in view.serving.ends}


def health(agent: AgentProcess) -> tuple[int, str]:
    """The exit code and the words of ``edgefleet agent health``."""
    command = [sys.executable, "-m", "edgefleet.cli.main", "agent", "health"]
    done = subprocess.run(
        [*command, "--data-dir", str(agent.data)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def is_told_in_each_place(
    hub: ServedHub, agent: AgentProcess, view: DeviceView, cause: str, *, words: str, count: int
) -> None:
    """``view`` was read once the hub knew of these ends. ``words`` are those of the cause."""
    times = "once" if count == 1 else f"{count} times"
    said = f"{count}x {words}"
    text = f"The serving process ended by itself {times} in the last hour ({said})."
    assert text in view.line

    code, answer = health(agent)
    assert code == 1
    told = rf"unhealthy: .*\({re.escape(said)}\)\. \(since \d{{4}}-.*Z\)\n"
    assert re.fullmatch(told, answer)
    assert agent.log().count(f"ended by itself: {words}") == count

    command = CommandLine(agent.folder, {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_TOKEN": hub.token})
    assert said in command("device", "list").out
    assert said in command("device", "why", "cam-1").out
    page = hub.read("/devices/cam-1")
    assert said in page
    assert f'edgefleet_serving_ends{{cause="{cause}"}} {count}' in hub.read("/metrics")


def test_a_serving_process_that_is_killed_is_told_in_each_place(
    hub: ServedHub, tmp_path: Path, stack: ExitStack
) -> None:
    agent, client = on_release_1(tmp_path, hub, stack), hub.client()
    assert health(agent) == (0, "healthy: Serves digits 1.\n")
    assert client.device("cam-1").serving is None
    came = 0
    began = time.time()
    for _ in range(KILLS):
        pid, _ = agent.wait_serving()
        came = checkins(hub)
        os.kill(pid, signal.SIGKILL)
        while agent.status() is not None:
            time.sleep(0.01)
    view = wait_for(
        client, lambda view: ends(view) == {"SIGKILL": KILLS}, within=Checkins(hub, came + 2)
    )
    assert view.serving is not None
    assert began < view.serving.since < time.time()
    is_told_in_each_place(hub, agent, view, "SIGKILL", words="SIGKILL", count=KILLS)


def test_a_serving_process_that_is_killed_for_memory_is_told_in_each_place(
    hub: ServedHub, tmp_path: Path
) -> None:
    with memory_group(LIMIT_MIB) as group, ExitStack() as stack:
        if group is None:
            pytest.skip("This machine does not allow a memory cgroup.")
        agent = on_release_1(
            tmp_path, hub, stack, fault=group.join(), description="leak on white", environ=PLANTED
        )
        client, began = hub.client(), time.time()
        with Client(agent.serve) as asking:
            asking.wait_for("1")
            asking.bad.set()
            while agent.log().count("ended by itself") < FAILS_FROM:
                time.sleep(0.01)
            came = checkins(hub)
            asking.bad.clear()
            wait_for(
                client,
                lambda view: ends(view).get(OUT_OF_MEMORY, 0) >= FAILS_FROM,
                within=Checkins(hub, came + 2),
            )
            asking.wait_for("1")
        view = client.device("cam-1")
        assert view.serving is not None
        assert began < view.serving.since < time.time()
        assert list(ends(view)) == [OUT_OF_MEMORY]
        is_told_in_each_place(
            hub, agent, view, OUT_OF_MEMORY, words=OOM_WORDS, count=ends(view)[OUT_OF_MEMORY]
        )
