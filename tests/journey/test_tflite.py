"""A full-integer TFLite model on real processes: from its file to its answers on a device."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tritonclient import http as triton

from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.signing import PublisherKey
from support import tiny_tflite
from support.agent_process import AgentProcess
from support.command_line import CommandLine
from support.hub_process import HubProcess, running_hub

pytestmark = pytest.mark.long

GATE = GateSpec(
    min_sample=1, soak_s=0.2, confirm_after_s=1.0, silence_s=600.0, max_latency_p95_ms=60_000.0
)
RAW = """\
model = "raw"
release = "1"
task = "none"

[golden]
file = "golden.npz"
min_accuracy = 0
min_agreement = 1

[compare]
absolute = 0
relative = 0

[[variant]]
profile = "generic_x86"
precision = "int8"
file = "model.tflite"
tensors = "raw"
"""
"""The same file whose integers pass as they are."""


def check_rolled_out(hub: HubProcess, model: str) -> None:
    client = hub.client()
    wave = (WaveSpec(percent=100),)
    spec = RolloutSpec(model=model, release="1", waves=wave, gate=GATE, bake_s=0.0)
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START, Command())
    text = ""
    for seen in watch(client, rollout, clock=SystemClock(), timeout_s=400, every_s=0.2):
        if isinstance(seen, Observed):
            text = seen.view.text
            if seen.view.status is Status.COMPLETED:
                return
    raise AssertionError(text)


def answered(agent: AgentProcess, model: str, given: np.ndarray, datatype: str) -> np.ndarray:
    tensor = triton.InferInput("x", list(given.shape), datatype).set_data_from_numpy(given)
    with triton.InferenceServerClient(agent.serve) as client:
        return client.infer(model, [tensor]).as_numpy("y")


def test_a_full_integer_model_goes_from_its_file_to_a_device(tmp_path: Path) -> None:
    """The model ``tiny`` converts floats in the runtime. ``raw``, of the same file, does not."""
    file = tiny_tflite.classifier(tmp_path / "tiny.tflite").path
    reference = tiny_tflite.classifier(tmp_path / "reference.tflite", outside="FP32").path
    given, integers = tiny_tflite.inputs(32, "FP32"), tiny_tflite.inputs(32)
    wanted = tiny_tflite.interpreted(reference, given)
    np.savez(tmp_path / "samples.npz", X=given, y=wanted.argmax(axis=1))
    key = PublisherKey.generate()
    key.save(tmp_path / "publisher.key")
    with running_hub(tmp_path / "hub", interval_s=0.2) as hub:
        claim = hub.client().claim(ClaimRequest(count=1)).claims[0]
        agent = AgentProcess(tmp_path, hub, key, claim=claim)
        edgefleet = CommandLine(tmp_path, {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_TOKEN": hub.token})
        signed = ("--trust", "--key", str(tmp_path / "publisher.key"))
        try:
            agent.start()
            made = edgefleet(
                "model", "init", str(tmp_path / "1"), "--file", str(file), "--samples",
                str(tmp_path / "samples.npz"), "--model", "tiny", "--precision", "int8",
                "--task", "classification",
            )  # fmt: skip
            assert made.exit == 0, made.err
            shutil.copytree(tmp_path / "1", tmp_path / "raw")
            (tmp_path / "raw" / "release.toml").write_text(RAW)
            outputs = {"output.y": tiny_tflite.interpreted(file, integers)}
            np.savez(tmp_path / "raw" / "golden.npz", **{"input.x": integers, **outputs})
            for folder in ("1", "raw"):
                published = edgefleet("model", "publish", str(tmp_path / folder), *signed)
                assert published.exit == 0, published.err
            variant = hub.client().release("tiny", "1").manifest.variants[0]
            assert (variant.runtime, variant.inputs[0].datatype) == ("litert", "FP32")

            check_rolled_out(hub, "tiny")
            np.testing.assert_array_equal(answered(agent, "tiny", given[:4], "FP32"), wanted[:4])
            check_rolled_out(hub, "raw")
            np.testing.assert_array_equal(
                answered(agent, "raw", integers[:4], "INT8"), outputs["output.y"][:4]
            )
            np.testing.assert_array_equal(answered(agent, "tiny", given[4:8], "FP32"), wanted[4:8])
        finally:
            agent.end()
