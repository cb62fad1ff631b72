"""Each check of doctor finds its problem and gives a fix."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.clock import SystemClock
from edgefleet.cli.doctor import (
    clock,
    data_folder,
    disk,
    disk_faults,
    hub,
    keys,
    python,
    quarantined_devices,
    rollouts,
    serving_packages,
    token,
    unused_releases,
)
from edgefleet.cli.doctor.checks import CHECKS
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation
from edgefleet.protocol.operator import (
    Health,
    Models,
    ModelView,
    QuarantinedDevice,
    QuarantinedDevices,
    TrustedKeys,
    TrustKey,
)
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WAITS, Wait, WaitCode
from support.canned_hub import TOKEN, CannedHub
from support.command_line import CommandLine
from support.fake_reads import FakeReads, rollout_in


@dataclass
class Fixed:
    """A clock that does not advance."""

    at: float

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def context(canned: CannedHub, folder: Path, secret: str = TOKEN) -> Context:
    return Context(Invocation(hub=canned.url, token=secret, data_dir=folder), SystemClock())


def bad(finding: Finding) -> bool:
    """True for a warning or a bad finding, which must have a fix."""
    assert finding.text
    assert finding.state in (State.OK, State.SKIPPED) or finding.fix
    return finding.state in (State.BAD, State.WARNING)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEFLEET_HUB", raising=False)
    monkeypatch.delenv("EDGEFLEET_TOKEN", raising=False)
    return tmp_path / "config"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder as a hub creates it."""
    made = tmp_path / "hub"
    made.mkdir(mode=0o700)
    (made / "operator.token").write_text(TOKEN)
    (made / "operator.token").chmod(0o600)
    return made


def test_python(canned: CannedHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bad(python.check(context(canned, folder)))
    monkeypatch.setattr("edgefleet.cli.doctor.python.OLDEST", (9, 0))
    assert python.check(context(canned, folder)).state is State.BAD


def test_serving(canned: CannedHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bad(serving_packages.check(context(canned, folder)))
    monkeypatch.setattr("edgefleet.cli.doctor.serving_packages._PROBE", "import no_such_runtime")
    found = serving_packages.check(context(canned, folder))
    assert "no_such_runtime" in found.text
    assert "edgefleet[serving]" in found.fix


def test_a_data_folder_that_others_can_read(canned: CannedHub, folder: Path) -> None:
    assert not bad(data_folder.check(context(canned, folder)))
    (folder / "operator.token").chmod(0o644)
    found = data_folder.check(context(canned, folder))
    assert found.state is State.BAD
    assert str(folder / "operator.token") in found.fix
    assert bad(data_folder.check(context(canned, folder / "none")))


def test_a_full_disk(canned: CannedHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 0

    class Usage:
        @property
        def free(self) -> int:
            return free

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage())
    assert disk.check(context(canned, folder)).state is State.BAD
    free = 1 << 30
    assert disk.check(context(canned, folder / "not" / "yet")).state is State.WARNING
    free = 1 << 40
    assert not bad(disk.check(context(canned, folder)))


def test_a_hub_that_is_gone_or_of_another_version(canned: CannedHub, folder: Path) -> None:
    assert not bad(hub.check(context(canned, folder)))
    canned.put("GET", "/health", Health(status="ok", version="9.9.9", devices=0, uptime_s=1))
    found = hub.check(context(canned, folder))
    assert found.state is State.WARNING
    assert "9.9.9" in found.fix
    canned.url = "http://127.0.0.1:1"
    gone = hub.check(context(canned, folder))
    assert gone.state is State.BAD
    assert "edgefleet serve" in gone.fix


def test_a_token_that_is_not_accepted(canned: CannedHub, folder: Path) -> None:
    assert not bad(token.check(context(canned, folder)))
    canned.put("GET", "/api/v1/fleet", 401)
    assert token.check(context(canned, folder, "efo_wrong")).state is State.BAD
    (folder / "operator.token").unlink()
    nothing = token.check(context(canned, folder, ""))
    assert nothing.state is State.BAD
    assert "EDGEFLEET_TOKEN" in nothing.fix


@pytest.mark.parametrize(
    ("ahead_s", "state"),
    [(0, State.OK), (4, State.OK), (30, State.WARNING), (-30, State.WARNING), (3600, State.BAD)],
)
def test_clocks_apart(ahead_s: float, state: State, canned: CannedHub, folder: Path) -> None:
    here = context(canned, folder)
    theirs = here.hub_time
    assert theirs is not None
    here.clock = Fixed(theirs + ahead_s)
    assert clock.check(here).state is state


def test_the_signing_key(
    canned: CannedHub, folder: Path, home: Path, edgefleet: CommandLine
) -> None:
    canned.put("GET", "/api/v1/trust", TrustedKeys(keys=()))
    assert "key new" in keys.check(context(canned, folder)).fix
    made = edgefleet("key", "new", "--json", XDG_CONFIG_HOME=str(home)).json
    assert "--trust" in keys.check(context(canned, folder)).fix
    known = TrustKey(name="team", public_key=made["public_key"])
    canned.put("GET", "/api/v1/trust", TrustedKeys(keys=(known,)))
    assert not bad(keys.check(context(canned, folder)))
    file = home / "edgefleet" / "publisher.key"
    file.chmod(0o640)
    assert keys.check(context(canned, folder)).state is State.BAD
    file.chmod(0o600)
    file.write_text("no key")
    assert keys.check(context(canned, folder)).state is State.BAD


def test_a_release_that_goes_nowhere(canned: CannedHub, folder: Path) -> None:
    assert not bad(unused_releases.check(context(canned, folder)))
    idle = ModelView(name="faces", releases=("7", "6"), devices={"6": 4})
    canned.put("GET", "/api/v1/models", Models(models=(idle,)))
    found = unused_releases.check(context(canned, folder))
    assert found.fix == "edgefleet rollout plan --model faces --release 7"


def test_a_rollout_that_waits_for_a_person(canned: CannedHub, folder: Path) -> None:
    assert not bad(rollouts.check(context(canned, folder)))
    canned.put("GET", "/api/v1/rollouts", {"rollouts": [rollout_in(Status.PAUSED)]})
    assert rollouts.check(context(canned, folder)).fix == "edgefleet rollout why ro-paused"


@pytest.mark.parametrize("code", WaitCode)
def test_a_rollout_is_a_finding_for_each_reason_that_needs_a_person(
    code: WaitCode, canned: CannedHub, folder: Path
) -> None:
    view = rollout_in(Status.RUNNING)
    waits = (Wait(code=WaitCode.SOAK, text="First."), Wait(code=code, text="Then this one."))
    why = msgspec.structs.replace(view.why, waits=waits)
    canned.put("GET", "/api/v1/rollouts", {"rollouts": [msgspec.structs.replace(view, why=why)]})
    found = rollouts.check(context(canned, folder))
    assert bad(found) is WAITS[code].needs_a_person
    assert ("Then this one." in found.text) is WAITS[code].needs_a_person


def test_a_quarantined_device_waits_for_a_person(canned: CannedHub, folder: Path) -> None:
    assert not bad(quarantined_devices.check(context(canned, folder)))
    one = QuarantinedDevice(name="cam-1", model="digits", rollbacks=2)
    canned.put("GET", "/api/v1/quarantined", QuarantinedDevices(count=3, devices=(one,)))
    found = quarantined_devices.check(context(canned, folder))
    assert found.state is State.WARNING
    assert found.text.startswith("3 devices are quarantined")
    assert found.fix == "edgefleet device why cam-1"


def test_devices_that_cannot_write_their_disks_are_counted(canned: CannedHub, folder: Path) -> None:
    assert not bad(disk_faults.check(context(canned, folder)))
    faults = {"disk_full": 1, "disk_readonly": 2}
    seen = msgspec.structs.replace(FakeReads().fleet(), disk_faults=faults)
    canned.put("GET", "/api/v1/fleet", seen)
    found = disk_faults.check(context(canned, folder))
    assert found.state is State.WARNING
    assert found.text.startswith("3 devices cannot store anything (disk_full 1, disk_readonly 2)")
    assert found.fix == "edgefleet device list --disk-fault"


def test_without_a_hub_what_needs_one_is_skipped(edgefleet: CommandLine) -> None:
    said = edgefleet("doctor", "--json")
    assert said.exit == Exit.FAILED
    states = {finding["check"]: finding["state"] for finding in said.json["findings"]}
    assert states["hub"] == "bad"
    assert {states[name] for name in ("token", "clock", "releases", "rollouts", "devices")} == {
        "skipped"
    }
    assert list(states) == [name for name, _ in CHECKS]


def test_a_sound_machine_ends_with_0(
    edgefleet: CommandLine, canned: CannedHub, folder: Path
) -> None:
    canned.put("GET", "/api/v1/trust", TrustedKeys(keys=()))
    environ = {"EDGEFLEET_HUB": canned.url, "EDGEFLEET_TOKEN": TOKEN}
    said = edgefleet("doctor", "--data-dir", str(folder), **environ)
    assert said.exit == Exit.DONE
    assert said.out.count("\nok ") >= 5
