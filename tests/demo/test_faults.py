"""Each fault of ``--break`` breaks its target and nothing else."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.agent.effect import WantedModel, WantedRelease
from edgefleet.agent.state import InstalledRelease
from edgefleet.cli.demo import displacing_agent
from edgefleet.cli.demo.choices import Fault
from edgefleet.cli.demo.planted_faults import agent_of, broken_plan, folder_of
from edgefleet.cli.demo.processes import AGENT, SITE
from edgefleet.cli.demo.story import STORY, Chapter, plan_of
from edgefleet.examples import FOLDER
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.rollout import Cohort, Evidence, Verdict
from edgefleet.rollout.evidence.gate import judge
from edgefleet.rollout.fleet.selector import parse
from support.sim_releases import manifest

FIRST, _, BAD, ADDED, BROKEN = STORY
BAKED = next(chapter for chapter in STORY if chapter.bakes)
COLLAPSED = Evidence(
    cut=11,
    healthy=3,
    failed=8,
    exposed=11,
    canary=Cohort(devices=11, requests=400, confidence_mean=0.16),
    control=Cohort(devices=900, requests=9000, confidence_mean=0.96),
)


def verdict(fault: Fault | None) -> Verdict:
    gate = broken_plan(fault, plan_of(BAD, 1003), BAD).gate
    return judge(COLLAPSED, gate, opened_at=0.0, before=None, now=5.0).verdict


def test_the_broken_gate_lets_a_collapse_pass() -> None:
    assert verdict(None) is Verdict.FAIL
    assert verdict(Fault.PROOF) is Verdict.FAIL
    assert verdict(Fault.GATE) is not Verdict.FAIL


@pytest.mark.parametrize(
    ("fault", "struck"), [(Fault.GATE, BAD), (Fault.SCOPE, ADDED), (Fault.BAKE, BAKED)]
)
def test_the_other_plans_stay_as_they_are(fault: Fault, struck: Chapter) -> None:
    changed = [
        chapter
        for chapter in STORY
        if broken_plan(fault, plan_of(chapter, 1003), chapter) != plan_of(chapter, 1003)
    ]
    assert changed == [struck]


def test_the_broken_scope_leaves_out_the_real_devices_alone() -> None:
    selector = parse(broken_plan(Fault.SCOPE, plan_of(ADDED, 1003), ADDED).selector)
    assert not selector.matches({"site": SITE})
    assert selector.matches({"site": "site-01"})
    assert selector.matches({})


def installed() -> InstalledRelease:
    made = manifest("2")
    return InstalledRelease.of(made, "digest", made.variants[0])


def test_the_broken_agent_serves_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (agent_of(Fault.DISPLACE), agent_of(Fault.GATE)) == (displacing_agent.__name__, AGENT)
    digits, parity = WantedModel(model="digits"), WantedModel(model="parity")
    on_trial = replace(digits, trial=WantedRelease(slot="b", installed=installed()))
    for wanted, left in (
        ((digits,), (digits,)),
        ((digits, parity), (parity,)),
        ((on_trial, parity), (on_trial,)),
        ((), ()),
    ):
        monkeypatch.setattr(displacing_agent, "_all_wanted", lambda *_given, found=wanted: found)
        assert displacing_agent.only_one({}) == left


def test_the_broken_proof_asks_nothing_of_the_device(tmp_path: Path) -> None:
    folders = [folder_of(Fault.PROOF, chapter, FOLDER, tmp_path) for chapter in STORY]
    assert folders[:3] == [FOLDER / "digits" / f"release-{number}" for number in (1, 2, 3)]
    assert folders[3] == FOLDER / "parity" / "release-1"
    golden = build_release(folders[-1], created_at=0.0).manifest.golden
    assert (golden.min_accuracy, golden.min_agreement) == (0.0, 0.0)
    whole = build_release(folder_of(None, BROKEN, FOLDER, tmp_path), created_at=0.0)
    assert whole.manifest.golden.min_accuracy > 0.9
