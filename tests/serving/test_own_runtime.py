"""A user's own runtime, installed as a package: reported, published for, proved and served."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tritonclient import http as triton

from edgefleet.agent.agent_process import facts
from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.release import Artifact, TensorSpec, Variant
from edgefleet.protocol.serving import ProveRequest, ServedModel, ServedRelease
from edgefleet.serving.loading import load_model
from edgefleet.serving.prove import prove
from edgefleet.serving.runtime import named_runtime
from support.serving_process import serving

CODE = '''
import json
import numpy as np
from edgefleet.base.errors import PublisherError
from edgefleet.serving.runtime import PlainModel

class Toy:
    """A model is a JSON list of the factors of each feature."""

    def start(self):
        pass

    def versions(self):
        return {"toy": "1.4"}

    def load(self, file, variant, *, threads):
        try:
            with open(file.path) as opened:
                return Factors(np.array(json.load(opened), np.float32))
        except ValueError as error:
            raise PublisherError("not_a_model", f"{file.name} is no list: {error}.") from error

class Factors(PlainModel):
    def __init__(self, factors):
        self.factors = factors

    def run(self, inputs, outputs):
        return [inputs["x"] * self.factors for _ in outputs]

class Broken:
    def __init__(self):
        raise RuntimeError("no licence")
'''

RELEASE = """
model = "toy"
release = "1"
task = "none"

[golden]
file = "golden.npz"
min_accuracy = 0
min_agreement = 1

[[variant]]
profile = "board"
runtime = "toy"
precision = "fp32"
file = "factors.json"
max_batch = 4
memory_limit_mib = 64
"""
TENSORS = """
inputs = [{ name = "x", datatype = "FP32", shape = [-1, 3] }]
outputs = [{ name = "y", datatype = "FP32", shape = [-1, 3] }]
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two runtimes, on the path of this process and of its children."""
    site = tmp_path / "site"
    info = site / "toy-1.4.dist-info"
    info.mkdir(parents=True)
    (site / "toy_runtime.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.4\n")
    (info / "entry_points.txt").write_text(
        "[edgefleet.runtimes]\ntoy = toy_runtime:Toy\nbroken = toy_runtime:Broken\n"
        "onnx = toy_runtime:Broken\n"
    )
    monkeypatch.syspath_prepend(str(site))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{before}")
    return site


def variant_of(path: Path, text: str = "[1, 2, 3]") -> Variant:
    path.write_text(text)
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
    return Variant(
        profile="board",
        runtime="toy",
        precision="fp32",
        artifact=Artifact(sha256=sha256(text.encode()).hexdigest(), size_bytes=len(text)),
        inputs=(spec,),
        outputs=(replace(spec, name="y"),),
        max_batch=4,
        memory_limit_mib=64,
    )


def folder(path: Path, more: str = TENSORS) -> Path:
    path.mkdir()
    (path / "release.toml").write_text(RELEASE + more)
    (path / "factors.json").write_text("[1, 2, 3]")
    given = np.arange(12, dtype=np.float32).reshape(4, 3)
    arrays = {"input.x": given, "output.y": (given * np.float32([1, 2, 3])).astype(np.float32)}
    np.savez(path / "golden.npz", **arrays)
    return path


def test_a_device_reports_it_with_the_version_of_its_package() -> None:
    found = {one.runtime: one.version for one in facts("board").runtime_versions}
    assert found["toy"] == "1.4"
    assert found["onnx"] != "1.4", "a package cannot replace a runtime of edgefleet"


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_it_is_served(tmp_path: Path, isolation: str) -> None:
    path = tmp_path / "factors.json"
    release = ServedRelease(
        release="1", variant=variant_of(path), quality=None, artifact_path=str(path)
    )
    with serving(tmp_path) as process:
        process.apply(ServedModel(model="toy", confirmed=release, isolation=isolation))  # type: ignore[arg-type] # one of the two
        given = np.float32([[1, 1, 1], [2, 0, 4]])
        with triton.InferenceServerClient(process.address) as client:
            tensor = triton.InferInput("x", [2, 3], "FP32").set_data_from_numpy(given)
            for _ in range(5):
                made = client.infer("toy", [tensor]).as_numpy("y")
                np.testing.assert_array_equal(made, given * np.float32([1, 2, 3]))


def test_its_release_is_built_and_proved(tmp_path: Path) -> None:
    built = build_release(folder(tmp_path / "release"), created_at=0.0)
    variant = built.manifest.variants[0]
    assert (variant.runtime, variant.min_runtime) == ("toy", "")
    golden = built.manifest.golden
    result = prove(
        ProveRequest(
            variant=variant,
            golden=golden,
            artifact_path=str(built.files[variant.artifact.sha256]),
            golden_path=str(built.files[golden.artifact.sha256]),
        )
    )
    assert (result.passed, result.runtime, result.agreement) == (True, "1.4", 1.0)


def test_its_tensors_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=r"release_file_invalid \(variant\[0\].inputs\)"):
        build_release(folder(tmp_path / "release", more=""), created_at=0.0)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"runtime_missing.*broken.*no licence"):
        named_runtime("broken")
    with pytest.raises(DeviceError, match=r"runtime_missing.*No runtime other is installed"):
        named_runtime("other")
    path = tmp_path / "factors.json"
    with pytest.raises(PublisherError, match="not_a_model"):
        load_model(path, variant_of(path, "no JSON"))
