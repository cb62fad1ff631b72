"""``rollout plan --dry-run``: predicts a plan on this fleet and plans nothing."""

from pathlib import Path

import numpy as np
import pytest

from edgefleet.cli.rollout.dry_run import trial_lines, try_plan
from edgefleet.protocol.device import ModelReport, Phase
from edgefleet.protocol.operator import FleetGroup, PlanFleet
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.plan_fleet import compose
from edgefleet.testing import FakeDevice, FakeFleet
from edgefleet.testing.release import fake_manifest
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.engine_script import read_plan
from support.fake_reads import NOW

MANIFEST = fake_manifest("digits", "2", ["generic_x86"], now=0)


def fleet_of(devices: int) -> FakeFleet:
    fleet = FakeFleet(
        FakeDevice(
            f"d{number}",
            "generic_x86" if number % 4 else "coral_tpu",
            labels={"site": f"s{number % 3}", "serial": str(number)},
        )
        for number in range(devices)
    )
    fleet.publish("1")
    fleet.install("1")
    fleet.tick(60)
    return fleet


def found_by(*said: str, devices: int = 120) -> PlanFleet:
    fleet = fleet_of(devices)
    spec = read_plan(["2", *said])
    return compose(
        fleet.engine.fleet, spec, MANIFEST, np.zeros(0, np.int64), interval_s=60, now=fleet.now
    )


def test_devices_are_told_apart_by_what_the_plan_speaks_of() -> None:
    plain = found_by()
    assert plain.groups == (FleetGroup(profile="generic_x86", devices=90),)
    assert plain.ineligible == {"no_variant": 30}
    by_site = found_by("--budget", "site=1")
    assert {group.labels["site"]: group.devices for group in by_site.groups} == {
        "s0": 30, "s1": 30, "s2": 30,
    }  # fmt: skip


def test_devices_that_get_the_model_for_the_first_time_are_counted() -> None:
    found = found_by()
    assert (found.adds, found.had_model) == (0, 90)
    fleet = fleet_of(40)
    fleet.add_release(fake_manifest("detector", "1", ["generic_x86"], now=0))
    fleet.devices["d1"].protocol = fleet.devices["d2"].protocol = PROTOCOL
    fleet.devices["d1"].beside = (ModelReport(model="detector", release="1"),)
    fleet.tick(20)
    spec = read_plan(["1", "--model", "detector"])
    manifest = fake_manifest("detector", "1", ["generic_x86"], now=0)
    found = compose(
        fleet.engine.fleet, spec, manifest, np.zeros(0, np.int64), interval_s=60, now=fleet.now
    )
    assert (found.adds, found.had_model) == (1, 1)
    assert found.ineligible == {"no_variant": 10, "agent_one_model": 28}
    lines = trial_lines(try_plan(spec, found, manifest), "detector", "1")
    assert "adds        model detector to 1 device (1 already run it)" in lines
    assert "28 agent_one_model" in "".join(lines)


def test_what_the_devices_run_now_is_said() -> None:
    fleet = fleet_of(40)
    fleet.publish("1b")
    for number in (1, 2, 3):
        fleet.devices[f"d{number}"].protocol = PROTOCOL
        fleet.devices[f"d{number}"].beside = (ModelReport(model="detector", release="4"),)
    fleet.add_release(fake_manifest("detector", "4", ["generic_x86"], now=0))
    fleet.tick(60)
    for row in (5, 6):
        fleet.engine.fleet.observe(row, fleet.now, model="digits", release="1b", phase=Phase.IDLE)
    spec = read_plan(["2"])
    found = compose(
        fleet.engine.fleet, spec, MANIFEST, np.zeros(0, np.int64), interval_s=60, now=fleet.now
    )
    assert (found.replaced, found.beside) == ({"1": 28, "1b": 2}, {"detector 4": 3})
    lines = trial_lines(try_plan(spec, found, MANIFEST), "digits", "2")
    assert "replaces    digits 1 on 28 devices, digits 1b on 2 devices" in lines
    assert "keeps       detector 4 on 3 devices (other models)" in lines
    assert "removes     nothing" in lines


def test_devices_that_are_removed_or_wait_for_a_person_count_as_changed_by_nobody() -> None:
    fleet, spec = fleet_of(40), read_plan(["2"])
    fleet.remove("d1")
    fleet.devices["d2"].offline = True
    fleet.tick(300)
    blocked = {"quarantined": np.array([1, 2, 3]), "ahead": np.array([4, 5])}  # 1 and 4 fit not
    found = compose(
        fleet.engine.fleet,
        spec,
        MANIFEST,
        np.zeros(0, np.int64),
        interval_s=60,
        now=fleet.now,
        blocked=blocked,
    )
    assert (found.replaced, found.adds, found.had_model) == ({"1": 26}, 0, 26)
    assert found.left_out == {"quarantined": 2, "ahead": 1}
    assert (sum(group.devices for group in found.groups), found.offline) == (26, 0)
    lines = trial_lines(try_plan(spec, found, MANIFEST), "digits", "2")
    assert "leaves out  2 quarantined, 1 ahead of the hub" in lines


def test_approvals_are_said_with_the_duration() -> None:
    found = found_by("--approval-people", "1")
    lines = trial_lines(
        try_plan(read_plan(["2", "--approval-people", "1"]), found, MANIFEST), "m", "2"
    )
    assert "with 1 approval, each 1m30s after it is due" in "".join(lines)


def test_the_selector_narrows_what_is_found() -> None:
    assert sum(group.devices for group in found_by("--selector", "site=s1").groups) == 30


def test_those_who_do_not_check_in_are_said() -> None:
    fleet = fleet_of(40)
    for device in list(fleet.devices.values())[:10]:
        device.offline = True
    fleet.tick(300)
    found = compose(
        fleet.engine.fleet,
        read_plan(["2"]),
        MANIFEST,
        np.zeros(0, np.int64),
        interval_s=60,
        now=fleet.now,
    )
    assert found.offline == 10


@pytest.mark.parametrize(
    ("said", "waves"),
    [
        (("--waves", "10,100"), [("10 %", 9), ("100 %", 90)]),
        (("--wave", "5", "--wave", "site=s1"), [("5 devices", 5), ("site=s1", None), ("the rest", 90)]),
    ],
)  # fmt: skip
def test_the_cuts_are_those_of_the_plan(said: tuple[str, ...], waves: list) -> None:
    tried = try_plan(read_plan(["2", *said]), found_by(*said), MANIFEST)
    assert tried.prediction is not None
    cuts = [(wave.name, wave.cut) for wave in tried.prediction.waves]
    assert [name for name, _ in cuts] == [name for name, _ in waves]
    assert all(cut == wanted for (_, cut), (_, wanted) in zip(cuts, waves, strict=True) if wanted)


def test_a_careful_plan_takes_longer_and_has_fewer_on_trial() -> None:
    usual = try_plan(read_plan(["2"]), found_by(), MANIFEST).prediction
    said = ("--exposure-first", "2", "--exposure-growth", "0.1")
    careful = try_plan(read_plan(["2", *said]), found_by(*said), MANIFEST).prediction
    assert usual is not None
    assert careful is not None
    assert careful.most_in_trial < usual.most_in_trial
    assert (careful.duration_s or 0) > (usual.duration_s or 0)


def test_nothing_is_planned(fleet: CommandLine, canned: CannedHub, tmp_path: Path) -> None:
    groups = (FleetGroup(profile="raspberry_pi", devices=50),)
    found = PlanFleet(at=NOW, interval_s=60, groups=groups, offline=0, ineligible={})
    canned.put("POST", "/api/v1/plans", found)
    said = fleet("rollout", "plan", "--model", "digits", "--release", "2", "--dry-run", "--json")
    assert said.exit == 0, said.err
    assert said.json["prediction"]["ends"] == "completed"
    assert [(asked.method, asked.path) for asked in canned.asked][:1] == [("POST", "/api/v1/plans")]
    assert ("POST", "/api/v1/rollouts") not in {(a.method, a.path) for a in canned.asked}


def test_a_release_that_fits_nobody_says_so(fleet: CommandLine, canned: CannedHub) -> None:
    none = PlanFleet(at=NOW, interval_s=60, groups=(), offline=0, ineligible={"no_variant": 9})
    canned.put("POST", "/api/v1/plans", none)
    said = fleet("rollout", "plan", "--model", "digits", "--release", "2", "--dry-run")
    assert "No device is eligible" in said.out
