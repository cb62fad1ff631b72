"""Each fault of ``--break`` breaks its target and nothing else."""

from pathlib import Path

import pytest

from edgefleet.cli.demo.planted_faults import Fault, folder_of, gate_of
from edgefleet.cli.demo.story import STORY
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.rollout import Cohort, Evidence, Verdict
from edgefleet.rollout.evidence.gate import judge

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
BAD = STORY[2]
COLLAPSED = Evidence(
    cut=11,
    healthy=3,
    failed=8,
    exposed=11,
    canary=Cohort(devices=11, requests=400, confidence_mean=0.16),
    control=Cohort(devices=900, requests=9000, confidence_mean=0.96),
)


def verdict(fault: Fault | None) -> Verdict:
    gate = gate_of(fault, BAD)
    return judge(COLLAPSED, gate, opened_at=0.0, before=None, now=5.0).verdict


def test_the_broken_gate_lets_a_collapse_pass() -> None:
    assert verdict(None) is Verdict.FAIL
    assert verdict(Fault.PROOF) is Verdict.FAIL
    assert verdict(Fault.GATE) is not Verdict.FAIL


@pytest.mark.parametrize("chapter", [chapter for chapter in STORY if chapter is not BAD])
def test_the_other_gates_stay_as_they_are(chapter) -> None:
    assert gate_of(Fault.GATE, chapter) == chapter.gate


def test_the_broken_proof_asks_nothing_of_the_device(tmp_path: Path) -> None:
    folders = [folder_of(Fault.PROOF, chapter, EXAMPLES, tmp_path) for chapter in STORY]
    assert folders[:3] == [EXAMPLES / f"release-{number}" for number in (1, 2, 3)]
    golden = build_release(folders[3], created_at=0.0).manifest.golden
    assert (golden.min_accuracy, golden.min_agreement) == (0.0, 0.0)
    whole = build_release(folder_of(None, STORY[3], EXAMPLES, tmp_path), created_at=0.0)
    assert whole.manifest.golden.min_accuracy > 0.9
