"""The lineage and the report beside a release, from the outcome of a search."""

import shutil
from pathlib import Path

from msgspec.structs import replace

from edgefleet.examples import FOLDER
from edgefleet.optimize.evidence import profile_report, write_evidence
from edgefleet.optimize.lineage import Making
from edgefleet.optimize.outcome import ProfileOutcome, Tried
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.lineage import read_lineage
from support.lineages import AT, digest, source
from support.reports import report


def outcome(profile: str) -> ProfileOutcome:
    """The search of the report's first profile, under another name."""
    shown = report().profiles[0]
    built = [one for one in shown.judgements if one.candidate is not None]
    tried = [Tried(recipe=one.candidate.recipe, judgement=one) for one in built if one.candidate]
    return ProfileOutcome(
        profile=profile,
        baseline=shown.baseline,
        tried=tuple(tried),
        skipped=(),
        front=(tried[0].recipe, tried[1].recipe),
        chosen=tried[0].judgement,
        text="",
    )


def test_a_release_gets_its_lineage_and_its_report(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER / "digits" / "release-2", tmp_path / "digits-2")
    before = build_release(folder, created_at=0.0).manifest
    making = Making(
        model="digits", release="2", source=source(), data={"evaluation": digest("e")},
        tools={"onnx": "1.20"}, machine={"cores": 2, "instructions": ["avx2"]},
        started_at=AT, finished_at=AT,
    )  # fmt: skip
    outcomes = [outcome(one.profile) for one in before.variants]
    write_evidence(folder, making, outcomes, "top1", 0.99)
    after = build_release(folder, created_at=0.0).manifest
    assert after.lineage is not None
    assert replace(after, lineage=None) == before
    statement = read_lineage((folder / "lineage.json").read_bytes())
    evaluated = statement.predicate.edgefleet_evaluation
    assert {one.profile: one.sha256 for one in evaluated} == {
        one.profile: one.artifact.sha256 for one in before.variants
    }
    assert {one.name for one in statement.subject} == {
        before_path.name for before_path in folder.glob("*.onnx")
    }
    assert statement.predicate.build_definition.external_parameters["metric"] == "top1"
    text = (folder / "report.html").read_text()
    assert all(f"<h2>{one.profile}</h2>" in text for one in before.variants)
    assert "cores 2, avx2" in text


def test_the_report_marks_the_front_and_the_choice() -> None:
    shown = profile_report(outcome("p"), 0.98)
    wanted = report().profiles[0]
    assert (shown.chosen, shown.front, shown.keep) == (wanted.chosen, wanted.front, 0.98)
    none = profile_report(replace(outcome("p"), chosen=None, text="None."), 0.98)
    assert (none.chosen, none.text) == (None, "None.")
