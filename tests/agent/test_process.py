"""Real agent processes with a real serving process and real models, killed at the worst moments."""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from edgefleet.agent.table import Stage
from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import CONTROL_API
from edgefleet.security.signing import PublisherKey
from support.agent_process import CLASS_NAMES, AgentProcess, Publisher, device, only
from support.fake_hub import FakeHub, fake_hub
from support.old_serving import old_serving, old_status

CONFIRMED_1 = [("1", "trial_started", ""), ("1", "confirmed", "")]


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def pair(hub: FakeHub, tmp_path: Path) -> Generator[tuple[AgentProcess, Publisher]]:
    with device(tmp_path, hub) as both:
        yield both


@pytest.fixture
def on_release_1(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher]
) -> tuple[AgentProcess, Publisher]:
    """An agent that runs and serves release 1, confirmed."""
    agent, publisher = pair
    publisher.offer("1")
    agent.start()
    hub.wait(lambda hub: ("1", "confirmed", "") in hub.kinds())
    return agent, publisher


def finals(hub: FakeHub, release: str) -> list[tuple[str, str]]:
    return [
        (kind, reason)
        for named, kind, reason in hub.kinds()
        if named == release and kind not in ("trial_started", "deferred")
    ]


def test_a_new_device_enrols_installs_and_serves(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, _ = on_release_1
    assert hub.kinds() == CONFIRMED_1
    assert [(one.name, one.labels) for one in hub.enrolled] == [("device", {"site": "lyon"})]
    status = agent.status()
    assert status is not None
    (mine,) = status.models
    assert (mine.ready, mine.release, status.url) == (True, "1", f"http://{agent.serve}")
    assert (agent.data / "credential.json").stat().st_mode & 0o777 == 0o600
    assert agent.check_valid() == "1"
    with contextlib.closing(HttpLink(status.url)) as link:
        metadata = link.request("GET", "/v2/models/digits", timeout_s=10.0)
    output = msgspec.json.decode(metadata.body)["outputs"][0]
    assert output["parameters"] == {"classes": list(CLASS_NAMES)}


def test_a_release_that_is_not_what_its_golden_set_says_is_refused(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    publisher.offer("4", break_golden=True)
    hub.wait(lambda hub: finals(hub, "4"))
    assert finals(hub, "4") == [("refused", "golden_failed")]
    status = agent.status()
    assert status is not None
    assert (status.models[0].release, agent.check_valid()) == ("1", "1")


def test_a_signature_by_a_stranger_is_refused(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    _, publisher = on_release_1
    publisher.offer("2", key=PublisherKey.generate())
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("refused", "signature_invalid")]


@pytest.mark.long
def test_a_release_with_a_datatype_of_a_later_version_is_refused_and_the_device_serves_on(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    publisher.offer("2", datatype="FP4")
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("refused", "manifest_unreadable")]
    status = agent.status()
    assert status is not None
    assert (status.models[0].release, agent.check_valid()) == ("1", "1")


def test_a_release_without_a_variant_for_the_device_is_refused(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    _, publisher = on_release_1
    publisher.offer("2", profile="coral_tpu")
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("refused", "no_variant")]


def test_bytes_that_are_not_those_announced_are_refused(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    _, publisher = on_release_1
    publisher.offer("2")
    for sha256, data in hub.artifacts.items():
        hub.artifacts[sha256] = data[:-1] + b"?"
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("refused", "digest_mismatch")]


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.WATCHING])
def test_an_agent_killed_in_an_update_comes_back_and_ends_it(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher], stage: Stage
) -> None:
    agent, publisher = on_release_1
    if stage is Stage.FETCHING:
        publisher.offer("2", padding=8)
        hub.slow = threading.Event()
    else:
        publisher.offer("2", confirm_after_s=3.0)
    agent.wait(lambda state: only(state).stage is stage)
    agent.kill()
    assert agent.check_valid() in ("1", "2")
    before = agent.status()
    assert before is not None, "serving outlives the agent"
    if hub.slow is not None:
        hub.slow.set()
        hub.slow = None
    agent.start()
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]
    after = agent.status()
    assert after is not None
    assert (after.models[0].release, after.pid) == ("2", before.pid), (
        "the living process was adopted"
    )
    assert agent.check_valid() == "2"
    assert len(hub.enrolled) == 1, "the claim was used once"


def test_an_agent_killed_between_trial_and_confirm_says_so_once(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    hub.lose_with = "confirmed"  # received, never acknowledged: it stays in the spool
    publisher.offer("2")
    agent.wait(lambda state: any(one.kind == "confirmed" for one in state.spool))
    hub.wait(lambda hub: finals(hub, "2"))
    agent.kill()
    hub.lose_with = ""
    agent.start()
    agent.wait(lambda state: only(state).stage is Stage.IDLE and not state.spool)
    assert finals(hub, "2") == [("confirmed", "")]
    assert hub.repeated >= 1, "it was sent again, and counted once"
    assert agent.check_valid() == "2"


def test_an_agent_killed_in_every_trial_gives_the_release_up(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    publisher.offer("2", confirm_after_s=60.0)
    for tries in (1, 2):
        agent.wait(
            lambda state, tries=tries: (
                only(state).stage is Stage.WATCHING
                and only(state).attempt is not None
                and only(state).attempt.tries == tries
            )
        )
        agent.kill()
        agent.start()
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("trial_failed", "trial_interrupted")]
    agent.wait(lambda state: only(state).stage is Stage.IDLE)
    status = agent.status()
    assert status is not None
    assert (status.models[0].release, agent.check_valid()) == ("1", "1")


def test_a_worker_that_dies_in_trial_fails_it_and_the_old_release_never_stopped(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    before = agent.status()
    publisher.offer("3", confirm_after_s=60.0)
    agent.wait(lambda state: only(state).stage is Stage.WATCHING)
    status = agent.status()
    assert status is not None
    worker = status.models[0].worker
    assert worker is not None
    os.kill(worker, signal.SIGSEGV)
    hub.wait(lambda hub: finals(hub, "3"))
    assert finals(hub, "3") == [("trial_failed", "serving_crashed")]
    agent.wait(lambda state: only(state).stage is Stage.IDLE)
    after = agent.status()
    assert before is not None
    assert after is not None
    assert (after.models[0].release, agent.check_valid()) == ("1", "1")
    assert after.pid == before.pid


def test_a_serving_process_that_is_killed_in_trial_comes_back_with_the_trial(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    publisher.offer("2", confirm_after_s=3.0)
    agent.wait(lambda state: only(state).stage is Stage.WATCHING)
    agent.kill_serving()
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]


def test_a_serving_process_that_dies_is_started_again(
    on_release_1: tuple[AgentProcess, Publisher],
) -> None:
    agent, _ = on_release_1
    before = agent.kill_serving()
    after, mine = agent.wait_serving()
    assert after != before
    assert mine.release == "1"


def test_an_agent_that_is_stopped_stops_serving_unless_told_otherwise(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, _ = on_release_1
    assert agent.stop() == 0
    assert agent.status() is None
    agent.start(environ={"EDGEFLEET_AGENT_KEEP_SERVING": "yes"})
    before, _ = agent.wait_serving()
    assert agent.stop() == 0
    after = agent.status()
    assert after is not None
    assert after.pid == before


@pytest.mark.parametrize("api", [None, CONTROL_API + 1], ids=["older", "newer"])
def test_a_serving_process_with_another_control_api_is_replaced_by_one_with_the_confirmed_release(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher], api: int | None
) -> None:
    """The agent was upgraded, or downgraded, and the serving process was kept."""
    agent, publisher = on_release_1
    assert agent.stop() == 0
    status = old_status("1") if api is None else {**old_status("1"), "api": api}
    port = int(agent.serve.rpartition(":")[2])
    with old_serving(agent.data, port, status) as old:
        agent.start()
        new, mine = agent.wait_serving()
        assert old.wait(30) == -signal.SIGTERM
    assert new != old.pid
    assert mine.release == agent.check_valid() == "1"
    assert hub.kinds() == CONFIRMED_1, "no release is blamed for it"
    assert f"version {api or 1} of the control API, this agent version {CONTROL_API}" in agent.log()
    assert "Traceback" not in agent.log()
    publisher.offer("2")
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]
    last = agent.status()
    assert last is not None
    assert last.pid == new, "it was replaced once"


def test_a_serving_process_with_another_control_api_is_replaced_in_a_trial(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    """The agent ended in a trial, and the next one is newer than the serving process."""
    agent, publisher = on_release_1
    publisher.offer("2", confirm_after_s=3.0)
    agent.wait(lambda state: only(state).stage is Stage.WATCHING)
    agent.kill()
    agent.kill_serving()
    port = int(agent.serve.rpartition(":")[2])
    with old_serving(agent.data, port, old_status("2")) as old:
        agent.start()
        agent.wait_serving()
        assert old.wait(30) == -signal.SIGTERM
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]
    assert agent.check_valid() == "2"


def test_a_device_serves_with_a_wrong_address_proxy_and_claim_file(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher], tmp_path: Path
) -> None:
    agent, _ = on_release_1
    agent.stop()
    wrong = ("--hub", "hub:8400", "--claim-file", str(tmp_path))
    agent.identity = (*agent.identity[2:], *wrong)  # without the claim
    heard = len(hub.check_ins)
    agent.start(environ={"HTTP_PROXY": "socks5://proxy:1080"})
    agent.wait_answer()
    hub.wait(lambda hub: len(hub.check_ins) > heard)
    assert "'hub:8400' is not a valid address" in agent.log()
    assert "cannot be read" in agent.log()


def test_a_second_agent_on_the_same_folder_is_turned_away(
    on_release_1: tuple[AgentProcess, Publisher],
) -> None:
    agent, _ = on_release_1
    first = agent.process
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(30) == 1
    assert "data_dir_in_use" in agent.log()
    agent.process = first


def test_a_used_claim_ends_the_agent_with_a_typed_error(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher]
) -> None:
    agent, _ = pair
    hub.claims.clear()
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(30) == 1
    assert "claim_used" in agent.log()
    assert not (agent.data / "credential.json").exists()


def test_a_download_that_breaks_goes_on_where_it_stopped(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    _, publisher = on_release_1
    hub.cut_after = 1000
    hub.ranges.clear()
    publisher.offer("2")
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]
    assert "bytes=1000-" in hub.ranges


def test_what_was_said_while_the_hub_was_away_arrives_once(
    hub: FakeHub, on_release_1: tuple[AgentProcess, Publisher]
) -> None:
    agent, publisher = on_release_1
    hub.fail_with = "confirmed"
    publisher.offer("2")
    agent.wait(lambda state: any(one.kind == "confirmed" for one in state.spool))
    hub.fail_with = ""
    hub.wait(lambda hub: finals(hub, "2"))
    assert finals(hub, "2") == [("confirmed", "")]
