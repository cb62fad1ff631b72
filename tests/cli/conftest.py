"""A command line and a fake hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.protocol.operator import Health
from edgefleet.protocol.rollout import Status
from support.canned_hub import TOKEN, CannedHub, canned_hub
from support.command_line import CommandLine
from support.fake_reads import FakeReads, rollout_in
from support.scenes import two_models, two_reasons


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not read files or variables of the user who runs the tests."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def edgefleet(tmp_path: Path) -> CommandLine:
    """A command line without a hub."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home, {})


@pytest.fixture
def canned() -> Iterator[CannedHub]:
    """A hub that answers with the fake reads."""
    reads = FakeReads()
    running = rollout_in(Status.RUNNING)
    reads.put(running)
    device = reads.device_views[0]
    with canned_hub() as hub:
        hub.put("GET", "/health", Health(status="ok", version="0.1.0", devices=1003, uptime_s=60))
        hub.put("GET", "/api/v1/fleet", reads.fleet())
        hub.put("GET", "/api/v1/models", reads.models())
        hub.put("GET", "/api/v1/models/digits", reads.model("digits"))
        hub.put("GET", "/api/v1/models/digits/releases/2", reads.release("digits", "2"))
        hub.put("GET", "/api/v1/models/digits/releases/2/why", reads.why_release("digits", "2"))
        hub.put("GET", "/api/v1/devices", reads.devices(None, 3))
        hub.put("GET", f"/api/v1/devices/{device.name}", device)
        hub.put("GET", f"/api/v1/devices/{device.name}/why", reads.why_device(device.name))
        hub.put("GET", f"/api/v1/devices/{device.name}/history", reads.device_history(device.name))
        hub.put("GET", "/api/v1/devices/lyon-0900", two_models())
        hub.put("GET", "/api/v1/devices/lyon-0900/why", two_reasons())
        hub.put("GET", "/api/v1/rollouts", reads.rollouts())
        hub.put("GET", "/api/v1/quarantined", reads.quarantined())
        hub.put("GET", f"/api/v1/rollouts/{running.id}", running)
        hub.put("GET", f"/api/v1/rollouts/{running.id}/why", running.why)
        hub.put("POST", "/api/v1/rollouts", rollout_in(Status.PLANNED))
        hub.put("GET", "/api/v1/audit", reads.audit(None, 3))
        yield hub


@pytest.fixture
def fleet(edgefleet: CommandLine, canned: CannedHub) -> CommandLine:
    """A command line whose variables name ``canned``."""
    return CommandLine(edgefleet.home, {"EDGEFLEET_HUB": canned.url, "EDGEFLEET_TOKEN": TOKEN})
