"""An operator's day against a real hub: publish, claim, roll out, watch, ask why."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edgefleet.cli.exits import Exit
from edgefleet.client.watch import watch
from edgefleet.examples import FOLDER
from support.command_line import CommandLine
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrol

DIGITS = FOLDER / "digits"
QUICK = ("--waves", "50,100", "--soak", "0s", "--confirm-after", "0s", "--min-sample", "1")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub(tmp_path / "hub", interval_s=0.5, offline_after_s=60) as process:
        yield process


@pytest.fixture
def operator(
    edgefleet: CommandLine, hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """An operator on the hub's machine who sets only the data folder."""
    monkeypatch.setattr("edgefleet.client.watch.watch", partial(watch, every_s=0.02))
    assert edgefleet("key", "new").exit == 0
    return CommandLine(edgefleet.home, {"EDGEFLEET_DATA_DIR": str(hub.data_dir)})


def publish(operator: CommandLine, release: int) -> None:
    folder = str(DIGITS / f"release-{release}")
    said = operator("model", "publish", folder, "--trust", "--skip-proof", "--json")
    assert said.exit == 0, said.out
    assert said.json["release"]["manifest"]["release"] == str(release)


def devices(operator: CommandLine, hub: HubProcess, count: int) -> list[RawDevice]:
    claims = operator("device", "claim", "--count", str(count), "--json").json["claims"]
    made = []
    for number, claim in enumerate(claims):
        said = enrol(hub.url, claim, f"dev-{number}", labels={"site": "lyon"})
        made.append(RawDevice(said.device, said.token, said.checkin_url))
    return made


@contextmanager
def alive(fleet: list[RawDevice], *, healthy: bool) -> Iterator[None]:
    """Devices that check in continuously."""
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.01):
            for device in fleet:
                if device.try_check_in():
                    device.live(healthy=healthy)
        for device in fleet:
            device.close()
            device.link = None

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_good_release_goes_out_and_a_bad_one_comes_back(
    operator: CommandLine, hub: HubProcess
) -> None:
    publish(operator, 1)
    publish(operator, 2)
    fleet = devices(operator, hub, 4)
    with alive(fleet, healthy=True):
        plan = ("rollout", "plan", "--model", "digits", "--release", "1", *QUICK)
        planned = operator(*plan, "--json").json
        assert planned["status"] == "planned"
        assert operator("rollout", "start", "--json").json["status"] == "running"
        watched = operator("rollout", "watch", "--json")
        assert (watched.exit, watched.json["status"]) == (Exit.DONE, "completed")
        assert watched.json["id"] == planned["id"]
    assert {device.release for device in fleet} == {"1"}
    with alive(fleet, healthy=False):
        plan = ("rollout", "plan", "--model", "digits", "--release", "2", *QUICK)
        watched = operator(*plan, "--watch", "--json")
        assert (watched.exit, watched.json["status"]) == (Exit.FAILED, "reverted")
    assert {device.release for device in fleet} == {"1"}
    again = operator("rollout", "plan", "--model", "digits", "--release", "2", "--json")
    assert (again.exit, again.json["code"]) == (Exit.REFUSED, "release_failed_before")
    for about in (("device", "why", "dev-0"), ("model", "why", "digits", "2"), ("rollout", "why")):
        said = operator(*about)
        assert said.exit == 0
        assert said.out.strip()
    assert operator("device", "show", "dev-0", "--json").json["models"][0]["release"] == "1"
    actions = [entry["action"] for entry in operator("audit", "--json").json["entries"]]
    assert {"publish", "claim", "plan", "start"} <= set(actions)


def test_steering_is_refused_with_its_reason_when_it_is_too_late(
    operator: CommandLine, hub: HubProcess
) -> None:
    publish(operator, 1)
    fleet = devices(operator, hub, 2)
    with alive(fleet, healthy=True):
        plan = ("rollout", "plan", "--model", "digits", "--release", "1")
        assert operator(*plan, *QUICK, "--watch").exit == Exit.DONE
    done = operator("rollout", "list", "--json").json["rollouts"][0]["id"]
    said = operator("rollout", "resume", done)
    assert said.exit == Exit.REFUSED
    assert "verb_not_now" in said.err
    assert "  next:  edgefleet rollout why" in said.err
    unknown = operator(*plan, "--selector", "planet=mars", "--json")
    assert (unknown.exit, unknown.json["code"]) == (Exit.REFUSED, "selector_key_unknown")
    stale = operator("rollout", "revert", done, "--generation", "0", "--json")
    assert stale.exit == Exit.REFUSED


def test_a_publish_that_broke_goes_on_where_it_was(operator: CommandLine, hub: HubProcess) -> None:
    folder = str(DIGITS / "release-1")
    first = operator("model", "publish", folder, "--trust", "--skip-proof", "--json").json
    assert first["sent_bytes"] == first["total_bytes"]
    hub.kill()
    gone = operator("model", "publish", folder, "--skip-proof", "--json")
    assert (gone.exit, gone.json["code"]) == (Exit.NETWORK, "unreachable")
    hub.start()
    again = operator("model", "publish", folder, "--skip-proof", "--json")
    assert again.exit == 0
    assert again.json["sent_bytes"] == 0
    assert again.json["release"] == first["release"]


def test_a_publish_proves_each_variant_and_refuses_one_that_lies(operator: CommandLine) -> None:
    good = operator("model", "publish", str(DIGITS / "release-1"), "--trust", "--json")
    assert good.exit == 0
    assert len(good.json["variants"]) == 4
    for variant in good.json["variants"]:
        assert variant["proof"]["passed"]
        assert variant["proof"]["accuracy"] > 0.9
    bad = operator("model", "publish", str(DIGITS / "release-4"), "--json")
    assert (bad.exit, bad.json["code"]) == (Exit.FAILED, "golden_failed")
    releases = operator("model", "show", "digits", "--json").json["releases"]
    assert releases == ["1"]


def test_a_changed_release_under_the_same_name_is_refused(
    operator: CommandLine, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for file in (DIGITS / "release-1").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    publish(operator, 1)
    text = (folder / "release.toml").read_text()
    (folder / "release.toml").write_text(text.replace("max_batch = 4", "max_batch = 2"))
    said = operator("model", "publish", str(folder), "--skip-proof", "--json")
    assert (said.exit, said.json["code"]) == (Exit.REFUSED, "release_exists")
