"""``python -m edgefleet.sim.load`` against a real hub, over its real API."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, time

import pytest

from edgefleet.client.hub import HubClient
from edgefleet.examples import FOLDER
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.operator import ClaimRequest, TrustKey
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.wire import decode
from edgefleet.security.signing import PublisherKey, sign_manifest
from edgefleet.sim.load.fleet import FleetReport
from support.hub_process import HubProcess, running_hub
from support.waiting import WAIT_S

EXAMPLES = FOLDER / "digits"
COUNT = 40
GATE = GateSpec(soak_s=0.2, confirm_after_s=1.0, silence_s=20.0, patience_s=10.0, min_requests=20)


def new_claims(hub: HubProcess, file: Path) -> Path:
    client = hub.client()
    file.write_text("\n".join(client.claim(ClaimRequest(count=COUNT)).claims))
    client.close()
    return file


class RunningFleet:
    """The simulator's process, read line by line."""

    def __init__(
        self, hub: HubProcess, folder: Path, *options: str, trust: str, claims: Path | None = None
    ) -> None:
        (folder / "trust").write_text(f"{trust}\n")
        if claims is None:
            claims = new_claims(hub, folder / "claims")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgefleet.sim.load", "--hub", hub.url),
                *("--claims", str(claims), "--trust", str(folder / "trust")),
                *("--field", f"digits={EXAMPLES / 'field.npz'}", "--devices", str(COUNT)),
                *("--interval", "0.5", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def until(self, holds: Callable[[FleetReport], bool]) -> FleetReport:
        """The first report for which the condition holds."""
        assert self.process.stdout is not None
        deadline = monotonic() + WAIT_S
        for line in self.process.stdout:
            report = decode(line, FleetReport)
            if holds(report):
                return report
            if monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"No report fits after {WAIT_S:g} s; the last one: {report}.")
        raise AssertionError(self.process.communicate()[1])

    def stop(self) -> tuple[int, FleetReport | None]:
        """Send SIGTERM. Returns the exit code and the last report."""
        self.process.terminate()
        output = self.process.communicate(timeout=30)[0].splitlines()
        return self.process.returncode, decode(output[-1], FleetReport) if output else None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub(tmp_path / "hub", interval_s=0.5) as running:
        yield running


def publish(client: HubClient, release: str, key: PublisherKey) -> None:
    built = build_release(EXAMPLES / f"release-{release}", created_at=time())
    for sha256, path in built.files.items():
        client.upload(sha256, path)
    client.publish(sign_manifest(built.manifest, key))


def on_release_1(report: FleetReport) -> int:
    return report.on_release.get("digits", {}).get("1", 0)


def roll_out(client: HubClient, release: str) -> str:
    spec = RolloutSpec(model="digits", release=release, waves=(WaveSpec(percent=100),), gate=GATE)
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START)
    return rollout


def test_simulated_devices_take_real_releases_from_a_real_hub_that_dies_meanwhile(
    hub: HubProcess, tmp_path: Path
) -> None:
    key = PublisherKey.generate()
    client = hub.client()
    client.trust(TrustKey(name="test", public_key=key.public.text))
    fleet = RunningFleet(hub, tmp_path, trust=key.public.text)
    try:
        fleet.until(lambda report: report.devices == COUNT)
        assert client.fleet().total == COUNT
        publish(client, "1", key)
        rollout = roll_out(client, "1")
        fleet.until(lambda report: on_release_1(report) > 0)
        hub.kill()
        hub.start()
        report = fleet.until(lambda report: on_release_1(report) >= report.link_up * 0.9)
        # The hub's counts, from repeated outcomes, equal the devices' own counts.
        client = hub.client()
        fleet.until(lambda _: client.rollout(rollout).status is Status.COMPLETED)
        exposed = client.rollout(rollout).exposed
    finally:
        code, last = fleet.stop()
    assert code == 0
    assert last is not None
    assert last.kind == "summary"
    assert last.ran["digits"]["1"] >= exposed >= on_release_1(report)


def test_devices_refuse_what_their_own_keys_did_not_sign(hub: HubProcess, tmp_path: Path) -> None:
    key = PublisherKey.generate()
    client = hub.client()
    client.trust(TrustKey(name="test", public_key=key.public.text))
    fleet = RunningFleet(hub, tmp_path, trust=PublisherKey.generate().public.text)
    try:
        fleet.until(lambda report: report.devices == COUNT)
        publish(client, "1", key)
        rollout = roll_out(client, "1")
        fleet.until(lambda _: client.rollout(rollout).status is Status.REFUSED)
        view = client.rollout(rollout)
    finally:
        code, last = fleet.stop()
    assert code == 0
    assert last is not None
    assert last.ran == {}
    assert view.exposed == 0
    assert set(view.evidence.reasons) == {"signature_invalid"}


def test_a_claim_that_was_used_ends_the_simulator_with_the_hub_s_own_error(
    hub: HubProcess, tmp_path: Path
) -> None:
    key = PublisherKey.generate().public.text
    claims = new_claims(hub, tmp_path / "claims")
    first = RunningFleet(hub, tmp_path, trust=key, claims=claims)
    first.until(lambda report: report.devices == COUNT)
    first.stop()
    again = RunningFleet(hub, tmp_path, "--prefix", "other", trust=key, claims=claims)
    said = again.process.communicate(timeout=60)[1]
    assert again.process.returncode == 1
    assert b"claim_used" in said
