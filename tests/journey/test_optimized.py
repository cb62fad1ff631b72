"""examples/optimize: from one model file to three real devices, each with its own variant."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tritonclient import http as triton

from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.optimize.edgetpu.coverage import coverage
from edgefleet.optimize.release_folder import build_release
from edgefleet.optimize.run_model import answers
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.release import Variant
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess
from support.command_line import CommandLine
from support.equal_latencies import make_equal
from support.hub_process import HubProcess, running_hub

pytestmark = [pytest.mark.long, pytest.mark.timeout(2_700)]

SRC = Path(__file__).parents[2] / "src"
EXAMPLE = Path(__file__).parents[2] / "examples" / "optimize"
GATE = GateSpec(
    min_sample=1, soak_s=0.2, confirm_after_s=1.0, silence_s=600.0, max_latency_p95_ms=60_000.0
)
WANTED = {
    "jetson_nano": ("onnx", "fp16", -1),
    "raspberry_pi": ("litert", "int8", -1),
    "coral_tpu": ("litert", "int8", 1),
}
"""Runtime, precision and batch of the file."""


TOOLS = Path(os.environ.get("EDGEFLEET_TOOLS") or Path.home() / ".cache/edgefleet/tools")
PYTHONS = {
    "torch/bin/python": Path(__file__).parents[2] / ".venv-torch" / "bin" / "python",
    "converters/bin/python": TOOLS / "keras" / "bin" / "python",
}
"""The Pythons of the README as they are here."""
needs_torch = pytest.mark.skipif(
    not PYTHONS["torch/bin/python"].exists(), reason="PyTorch is missing: make torch"
)
needs_keras = pytest.mark.skipif(
    not PYTHONS["converters/bin/python"].exists(), reason="TensorFlow is missing: make keras"
)


def documented(start: str) -> list[str]:
    """The arguments of the one command in the README that begins so."""
    (line,) = re.findall(
        rf"^edgefleet (model {re.escape(start)} .+)$",
        (EXAMPLE / "README.md").read_text(),
        re.MULTILINE,
    )
    return [str(PYTHONS.get(word, word)) for word in shlex.split(line)]


def make_source(name: str, folder: Path) -> None:
    """The model of the example and its data."""
    runpy.run_path(str(EXAMPLE / "make_model.py"))["main"](folder)
    if name == "net.py:trained":
        shutil.copy(EXAMPLE / "net.py", folder)
    if name == "net.keras":
        program = [PYTHONS["converters/bin/python"], EXAMPLE / "make_keras.py"]
        subprocess.run(program, cwd=folder, check=True, timeout=600)


def roll_out(hub: HubProcess) -> None:
    client = hub.client()
    wave = (WaveSpec(percent=100),)
    spec = RolloutSpec(model="digits", release="1", waves=wave, gate=GATE, bake_s=0.0)
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START, Command())
    text = ""
    for seen in watch(client, rollout, clock=SystemClock(), timeout_s=900, every_s=0.5):
        if isinstance(seen, Observed):
            text = seen.view.text
            if seen.view.status is Status.COMPLETED:
                return
    raise AssertionError(text)


def answered(agent: AgentProcess, name: str, given: np.ndarray) -> np.ndarray:
    tensor = triton.InferInput(name, list(given.shape), "FP32").set_data_from_numpy(given)
    with triton.InferenceServerClient(agent.serve) as client:
        made = client.infer("digits", [tensor])
        return made.as_numpy(made.get_response()["outputs"][0]["name"])


def check_serves(agent: AgentProcess, variant: Variant, file: Path, folder: Path) -> None:
    """The device proved the golden set, and serves this variant: its file, and its answers."""
    _, serving = agent.wait_serving(timeout_s=300.0)
    assert (serving.release, serving.artifact_sha256) == ("1", variant.artifact.sha256)
    assert "is proved: " in agent.log()
    with np.load(folder / "test.npz") as data:
        images, classes = data["X"][:24], data["y"][:24]
    given, output = variant.inputs[0].name, variant.outputs[0].name
    np.savez(folder / "asked.npz", **{f"input.{given}": images})
    wanted = answers(variant, file, folder / "asked.npz")[f"output.{output}"]
    step = variant.max_batch
    made = [answered(agent, given, images[at : at + step]) for at in range(0, len(images), step)]
    np.testing.assert_allclose(np.concatenate(made), wanted, atol=1e-4)
    assert (wanted.argmax(axis=1) == classes).mean() > 0.9


@pytest.mark.parametrize(
    "source",
    [
        "cnn.onnx",
        pytest.param("net.py:trained", marks=needs_torch),
        pytest.param("net.keras", marks=needs_keras),
    ],
)
def test_each_of_three_devices_serves_its_own_variant(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_equal(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(SRC))  # edgefleet for the Python of the converter
    make_source(source, tmp_path)
    key = PublisherKey.generate()
    key.save(tmp_path / "publisher.key")
    alone = CommandLine(tmp_path, {})
    made = alone(
        *documented(f"optimize {source}"), "--cache-dir", str(tmp_path / "cache"), "--budget", "1h"
    )
    assert made.exit == 0, made.err
    built = build_release(tmp_path / "release-1", created_at=0.0)
    variants = {one.profile: one for one in built.manifest.variants}
    files = {name: built.files[one.artifact.sha256] for name, one in variants.items()}
    found = {
        name: (one.runtime, one.precision, one.inputs[0].shape[0]) for name, one in variants.items()
    }
    assert found == WANTED
    assert len({one.artifact.sha256 for one in variants.values()}) == 3
    assert coverage(files["coral_tpu"]).mapped > 0
    assert "operators map to the Edge TPU" in made.out
    with running_hub(tmp_path / "hub", interval_s=0.2) as hub:
        claims = hub.client().claim(ClaimRequest(count=3)).claims
        agents: dict[str, AgentProcess] = {}
        for name, claim in zip(WANTED, claims, strict=True):
            (tmp_path / name).mkdir()
            device = name.replace("_", "-")
            agents[name] = AgentProcess(
                tmp_path / name, hub, key, claim=claim, name=device, profile=name
            )
        try:
            for agent in agents.values():
                agent.start()
            there = CommandLine(tmp_path, {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_TOKEN": hub.token})
            signed = ("--key", str(tmp_path / "publisher.key"))
            published = there(*documented("publish"), *signed)
            assert published.exit == 0, published.err
            roll_out(hub)
            for name, agent in agents.items():
                check_serves(agent, variants[name], files[name], tmp_path)
        finally:
            for agent in agents.values():
                agent.end()
