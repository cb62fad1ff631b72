"""A comparison of the publisher, installed as a package: found, run, and refused if it is missing."""

from pathlib import Path

import numpy as np
import pytest

from edgefleet.agent.agent_process import facts
from edgefleet.base.limits import COMPARISONS
from edgefleet.protocol.comparisons import BUILT_IN, PluginComparison
from edgefleet.protocol.release import Golden
from edgefleet.protocol.serving import ProveResult
from edgefleet.serving.prove import prove
from support.tiny_models import artifact_of, classifier, pixels, prove_request

CODE = """
import numpy as np

def closeness(got, wanted):
    return 1 - float(np.abs(got["probabilities"] - wanted["probabilities"]).mean())

def broken(got, wanted):
    raise KeyError("no such output")

def beyond(got, wanted):
    return 1.5
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with three comparisons on the path of this process."""
    site = tmp_path / "site"
    info = site / "ours-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "ours.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgefleet.comparisons]\ncloseness = ours:closeness\nbroken = ours:broken\n"
        "beyond = ours:beyond\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return site


def proved(folder: Path, name: str, *, min_agreement: float = 0.99) -> ProveResult:
    model = classifier(folder / "m.onnx")
    given = pixels(12)
    wanted = model.probabilities(given)
    arrays = {"input.pixels": given, "output.probabilities": wanted, "truth.probabilities": wanted}
    np.savez(folder / "g.npz", **arrays)
    golden = Golden(
        artifact=artifact_of(folder / "g.npz"),
        cases=12,
        min_accuracy=0.9,
        min_agreement=min_agreement,
        comparison=PluginComparison(name=name, outputs=("probabilities",)),
    )
    return prove(prove_request(model, golden, folder / "g.npz"))


@pytest.mark.usefixtures("plugins")
def test_a_plug_in_measures_accuracy_and_agreement(tmp_path: Path) -> None:
    result = proved(tmp_path, "closeness")
    assert (result.passed, result.detail) == (True, "")
    assert result.accuracy == result.agreement == pytest.approx(1.0, abs=1e-4)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken", "failed: KeyError"),
        ("beyond", "gave 1.5; it must be from 0 to 1"),
        ("missing", "is not installed"),
    ],
)
def test_a_plug_in_that_fails_refuses_the_release(tmp_path: Path, name: str, text: str) -> None:
    result = proved(tmp_path, name)
    assert (result.passed, result.reason) == (False, "golden_failed")
    assert text in result.detail


@pytest.mark.usefixtures("plugins")
def test_a_device_reports_its_comparisons_and_the_version_of_its_runtime() -> None:
    reported = facts("generic_x86")
    assert reported.comparisons == (*BUILT_IN, "plugin:beyond", "plugin:broken", "plugin:closeness")
    assert reported.runtimes[:1] == ("onnx",)
    assert tuple(one.runtime for one in reported.runtime_versions) == reported.runtimes
    assert reported.runtime_versions[0].version[0].isdigit()
    assert len(reported.comparisons) <= COMPARISONS


def test_a_device_without_plug_ins_reports_the_built_in_comparisons() -> None:
    assert facts("generic_x86").comparisons == BUILT_IN
