"""Real releases that pass their golden set and loop for ever on what a device sees."""

import time
from collections.abc import Generator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import IsolationReason, Offer
from support.agent_process import AgentProcess, Publisher, device
from support.bad_requests import (
    Client,
    ask,
    confirmed,
    finals,
    idle_on,
    isolated,
    reported_errors,
    wait_status,
)
from support.fake_hub import FakeHub, fake_hub

WAYS = pytest.mark.parametrize(
    "slow", [False, pytest.param(True, marks=pytest.mark.long)], ids=["event loop", "thread"]
)
"""Where the model runs in the serving process."""


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def pair(hub: FakeHub, tmp_path: Path) -> Generator[tuple[AgentProcess, Publisher]]:
    with device(tmp_path, hub) as both:
        yield both


@WAYS
def test_sigterm_to_the_agent_ends_both_processes_whatever_a_model_does(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    publisher.offer("1", slow=slow, hangs=True)
    agent.start()
    confirmed(hub, "1")
    pid = wait_status(agent, lambda _, mine: mine.ready and mine.worker is None).pid
    assert ask(agent.serve, bad=True, timeout_s=0.5) == ""
    assert agent.stop() == 0
    assert not Path(f"/proc/{pid}").exists()


def revert(offer: Offer, rollout: str) -> Offer:
    return replace(offer, action="revert", rollout=rollout)


@WAYS
def test_a_release_that_hangs_on_live_requests_fails_its_trial(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    publisher.offer("1", slow=slow)
    agent.start()
    confirmed(hub, "1")
    with Client(agent.serve) as client:
        client.wait_for("1", 20)
        publisher.offer("2", slow=slow, hangs=True, confirm_after_s=8.0)
        client.bad.set()
        hub.wait(lambda hub: finals(hub, "2"))
        assert finals(hub, "2") == [("trial_failed", "inference_hung")]
        (outcome,) = [one for one in hub.outcomes.values() if one.kind == "trial_failed"]
        assert "The oldest request has waited" in outcome.detail
        assert "(limit 5 s)" in outcome.detail
        agent.wait(idle_on("1"))
        client.wait_for("1")
    assert agent.check_valid() == "1"


@WAYS
def test_the_way_back_from_a_confirmed_release_that_hangs_is_never_waited_for(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    good = publisher.offer("1", slow=slow)
    agent.start()
    confirmed(hub, "1")
    publisher.offer("2", slow=slow, hangs=True)
    confirmed(hub, "2")
    wait_status(agent, lambda _, mine: mine.release == "2" and mine.worker is None)
    with Client(agent.serve) as client:
        client.wait_for("2", 5)
        client.bad.set()
        count = client.refused
        while client.refused == count:
            time.sleep(0.01)
        hub.offer = revert(good, "ro-2")
        agent.wait(idle_on("1"))
        client.wait_for("1")
    hub.wait(lambda hub: len(finals(hub, "2")) == 2)
    assert finals(hub, "2") == [("confirmed", ""), ("reverted", "recalled")]
    assert finals(hub, "1") == [("confirmed", "")], "the good release is not blamed"
    assert isolated(hub) == {}


@WAYS
def test_a_confirmed_release_that_hangs_is_ended_named_and_given_a_worker(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    publisher.offer("1", slow=slow, hangs=True)
    agent.start()
    confirmed(hub, "1")
    pid = wait_status(agent, lambda _, mine: mine.ready and mine.worker is None).pid
    with Client(agent.serve) as client:
        client.wait_for("1", 5)
        assert ask(agent.serve, bad=True, timeout_s=0.5) == ""
        client.wait_for("1")
    hub.wait(lambda hub: isolated(hub) == {"digits": IsolationReason.HUNG})
    hub.wait(lambda hub: reported_errors(hub) >= 1)
    wait_status(agent, lambda status, mine: mine.worker is not None and status.pid != pid)
