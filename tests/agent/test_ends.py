"""Serving that crashes, is killed for memory or leaks, in trial and afterwards: the cause is named."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from edgefleet.protocol.device import IsolationReason
from edgefleet.protocol.serving_health import OUT_OF_MEMORY
from support.agent_process import AgentProcess, Publisher, device
from support.bad_requests import (
    LIMIT_MIB,
    PLANTED,
    Client,
    confirmed,
    finals,
    idle_on,
    isolated,
    reported_errors,
    wait_status,
)
from support.cgroup import memory_group
from support.fake_hub import FakeHub, fake_hub


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def pair(hub: FakeHub, tmp_path: Path) -> Generator[tuple[AgentProcess, Publisher]]:
    with device(tmp_path, hub) as both:
        yield both


def ends(hub: FakeHub) -> dict[str, int]:
    """The ends of serving by cause, as the last check-in has them."""
    serving = hub.check_ins[-1].serving
    return {} if serving is None else {one.cause: one.count for one in serving.ends}


def detail(hub: FakeHub) -> str:
    (failed,) = [one for one in hub.outcomes.values() if one.kind == "trial_failed"]
    return failed.detail


def test_a_worker_that_is_killed_in_its_trial_is_rolled_back(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = pair
    publisher.offer("1")
    agent.start()
    confirmed(hub, "1")
    with Client(agent.serve) as client:
        client.wait_for("1", 5)
        publisher.offer("2", confirm_after_s=60.0)
        client.wait_for("2", 5)
        mine = wait_status(agent, lambda _, mine: mine.on_trial).models[0]
        assert mine.worker is not None
        os.kill(mine.worker, signal.SIGKILL)
        client.wait_for("1", 5)
    hub.wait(lambda hub: finals(hub, "2") == [("trial_failed", "serving_crashed")])
    assert "was killed (SIGKILL), as the kernel does when memory runs out" in detail(hub)


def test_a_release_that_leaks_in_its_trial_meets_the_memory_limit_of_its_worker(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = pair
    publisher.offer("1")
    agent.start(environ=PLANTED)
    confirmed(hub, "1")
    with Client(agent.serve) as client:
        client.bad.set()
        client.wait_for("1", 5)
        publisher.offer("2", description="leak on white", confirm_after_s=60.0)
        hub.wait(lambda hub: finals(hub, "2"))
        agent.wait(idle_on("1"))
        client.wait_for("1", 5)
    assert finals(hub, "2")[0][0] == "trial_failed"
    assert finals(hub, "2")[0][1] in ("inference_errors", "serving_crashed")


def test_a_release_that_leaks_in_its_trial_is_killed_by_the_kernel_alone(
    hub: FakeHub, tmp_path: Path
) -> None:
    with memory_group(LIMIT_MIB) as group:
        if group is None:
            pytest.skip("This machine does not allow a memory cgroup.")
        publisher = Publisher(tmp_path, hub)
        agent = AgentProcess(tmp_path, hub, publisher.key, fault=group.join())
        try:
            publisher.offer("1")
            agent.start(environ=PLANTED)
            confirmed(hub, "1")
            pid = wait_status(agent, lambda _, mine: mine.ready).pid
            with Client(agent.serve) as client:
                client.bad.set()
                client.wait_for("1", 5)
                publisher.offer("2", description="leak on white", confirm_after_s=60.0)
                hub.wait(lambda hub: finals(hub, "2"))
                client.wait_for("1", 5)
            assert finals(hub, "2") == [("trial_failed", "serving_crashed")]
            assert "was killed (SIGKILL), as the kernel does when memory runs out" in detail(hub)
            assert wait_status(agent, lambda _, mine: mine.ready).pid == pid, (
                "the worker went first"
            )
        finally:
            agent.end()


def test_a_confirmed_release_that_crashes_is_started_again_counted_and_named(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = pair
    publisher.offer("1", description="segfault on white")
    agent.start(environ=PLANTED)
    confirmed(hub, "1")
    wait_status(agent, lambda _, mine: mine.ready and mine.worker is None)
    with Client(agent.serve) as client:
        client.wait_for("1", 5)
        client.bad.set()
        hub.wait(lambda hub: isolated(hub) == {"digits": IsolationReason.CRASHED_TWICE})
        client.bad.clear()
        client.wait_for("1", 5)
    hub.wait(lambda hub: reported_errors(hub) >= 2)
    wait_status(agent, lambda _, mine: mine.worker is not None)
    hub.wait(lambda hub: ends(hub).get("SIGSEGV", 0) >= 2)


def test_a_confirmed_release_that_is_killed_for_memory_says_so(
    hub: FakeHub, tmp_path: Path
) -> None:
    with memory_group(LIMIT_MIB) as group:
        if group is None:
            pytest.skip("This machine does not allow a memory cgroup.")
        publisher = Publisher(tmp_path, hub)
        agent = AgentProcess(tmp_path, hub, publisher.key, fault=group.join())
        try:
            publisher.offer("1", description="leak on white")
            agent.start(environ=PLANTED)
            confirmed(hub, "1")
            wait_status(agent, lambda _, mine: mine.ready and mine.worker is None)
            with Client(agent.serve) as client:
                client.bad.set()
                hub.wait(lambda hub: ends(hub).get(OUT_OF_MEMORY))
                client.bad.clear()
                client.wait_for("1", 5)
            assert "SIGKILL (out of memory)" in agent.log()
            said = subprocess.run(
                [sys.executable, "-m", "edgefleet.agent", "status", "--data-dir", str(agent.data)],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert "SIGKILL (out of memory)" in said.stdout
        finally:
            agent.end()
