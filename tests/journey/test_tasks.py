"""Each kind of model on real processes: published, proved, rolled out, served; its twin refused."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.compose import add_prefix

from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import (
    Command,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess
from support.command_line import CommandLine
from support.hub_process import HubProcess, running_hub
from support.task_models import MODELS

pytestmark = pytest.mark.slow

GATE = GateSpec(
    min_sample=1, soak_s=0.2, confirm_after_s=1.0, silence_s=60.0, max_latency_p95_ms=60_000.0
)


@dataclass
class Line:
    """A hub, a device and a publisher."""

    hub: HubProcess
    agent: AgentProcess
    edgefleet: CommandLine

    def roll_out(self, model: str, release: str) -> RolloutView:
        client = self.hub.client()
        spec = RolloutSpec(
            model=model, release=release, waves=(WaveSpec(percent=100),), gate=GATE, bake_s=0.0
        )
        rollout = client.plan(spec).id
        client.command(rollout, Verb.START, Command())
        last = None
        for seen in watch(client, rollout, clock=SystemClock(), timeout_s=120, every_s=0.1):
            if isinstance(seen, Observed):
                last = seen.view
                if any(wait.code is WaitCode.INCONCLUSIVE for wait in last.why.waits):
                    break  # one device alone decides nothing, so a person does
        assert last is not None
        if last.status is Status.RUNNING:
            client.command(rollout, Verb.REVERT, Command())
        return last

    def ask(self, model: str, inputs: dict[str, np.ndarray], kinds: dict[str, str]) -> Any:
        body = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": kinds[name],
                    "data": array.ravel().tolist(),
                }
                for name, array in inputs.items()
            ]
        }
        request = urllib.request.Request(
            f"http://{self.agent.serve}/v2/models/{model}/infer", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("tasks")
    key = PublisherKey.generate()
    key.save(folder / "publisher.key")
    with running_hub(folder / "hub", interval_s=0.2) as hub:
        claim = hub.client().claim(ClaimRequest(count=1)).claims[0]
        agent = AgentProcess(folder, hub, key, claim=claim)
        environ = {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_TOKEN": hub.token}
        try:
            agent.start()
            yield Line(hub, agent, CommandLine(folder, environ))
        finally:
            agent.end()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_proved_and_served_and_its_broken_twin_is_refused(
    name: str, line: Line, tmp_path: Path
) -> None:
    model = MODELS[name]()
    model.write(tmp_path)
    key = ("--key", str(line.agent.folder / "publisher.key"))
    made = line.edgefleet(
        "model", "init", str(tmp_path / "1"), "--file", str(tmp_path / "good.onnx"),
        "--samples", str(tmp_path / "samples.npz"), "--model", name, *model.options,
    )  # fmt: skip
    assert made.exit == 0, made.err
    published = line.edgefleet("model", "publish", str(tmp_path / "1"), "--trust", *key, "--json")
    assert published.exit == 0, published.err
    view = line.roll_out(name, "1")
    assert view.status is Status.COMPLETED, view.text
    assert (view.unjudged == "") is (model.task == "classification")

    variant = line.hub.client().release(name, "1").manifest.variants[0]
    with np.load(tmp_path / "1" / "golden.npz") as golden:
        one = {spec.name: golden[f"input.{spec.name}"][:1] for spec in variant.inputs}
        wanted = {spec.name: golden[f"output.{spec.name}"][:1] for spec in variant.outputs}
    kinds = {spec.name: spec.datatype for spec in variant.inputs}
    answer = line.ask(name, one, kinds)["outputs"]
    for output in answer:
        got = np.array(output["data"]).reshape(output["shape"])
        if got.dtype.kind == "U":
            assert (got == wanted[output["name"]]).all()
        else:
            np.testing.assert_allclose(got, wanted[output["name"]], rtol=1e-4, atol=1e-5)

    shutil.copytree(tmp_path / "1", tmp_path / "2")
    toml = (tmp_path / "2" / "release.toml").read_text()
    (tmp_path / "2" / "release.toml").write_text(toml.replace('release = "1"', 'release = "2"'))
    (tmp_path / "2" / "model.onnx").write_bytes(model.broken)
    refused = line.edgefleet("model", "publish", str(tmp_path / "2"), *key)
    assert (refused.exit, "golden_failed" in refused.err) == (1, True)
    skipped = line.edgefleet("model", "publish", str(tmp_path / "2"), *key, "--skip-proof")
    assert skipped.exit == 0, skipped.err
    bad = line.roll_out(name, "2")
    assert bad.evidence.reasons == {"golden_failed": 1}
    assert " is below " in bad.evidence.details["golden_failed"]
    assert line.ask(name, one, kinds)["outputs"] == answer


def test_a_renamed_input_is_refused_and_shown(line: Line, tmp_path: Path) -> None:
    """The device runs release 1 of ``wine``, from here if no test above has put it there."""
    model = MODELS["wine"]()
    model.write(tmp_path)
    key = ("--key", str(line.agent.folder / "publisher.key"))
    if '"wine"' not in line.edgefleet("model", "list", "--json").out:
        line.edgefleet(
            "model", "init", str(tmp_path / "1"), "--file", str(tmp_path / "good.onnx"),
            "--samples", str(tmp_path / "samples.npz"), "--model", "wine", *model.options,
        )  # fmt: skip
        assert line.edgefleet("model", "publish", str(tmp_path / "1"), "--trust", *key).exit == 0
        assert line.roll_out("wine", "1").status is Status.COMPLETED
    graph = onnx.load(tmp_path / "good.onnx")
    onnx.save(add_prefix(graph, "new_", rename_edges=False, rename_nodes=False,
                         rename_outputs=False), tmp_path / "renamed.onnx")  # fmt: skip
    made = line.edgefleet(
        "model", "init", str(tmp_path / "3"), "--file", str(tmp_path / "renamed.onnx"),
        "--samples", str(tmp_path / "samples.npz"), "--model", "wine", "--release", "3",
    )  # fmt: skip
    assert made.exit == 0, made.err
    refused = line.edgefleet("model", "publish", str(tmp_path / "3"), *key)
    assert (refused.exit, "release_interface_changed" in refused.err) == (3, True)
    assert "Input X is gone; new_X is new." in refused.err
    published = line.edgefleet("model", "publish", str(tmp_path / "3"), *key, "--changes-interface")
    assert published.exit == 0, published.err
    plan = ("rollout", "plan", "--model", "wine", "--release", "3")
    planned = line.edgefleet(*plan)
    assert (planned.exit, "interface_changed" in planned.err) == (3, True)
    tried = line.edgefleet(*plan, "--dry-run")
    assert tried.exit == 0, tried.err
    assert "Against release 1: Input X is gone; new_X is new." in tried.out
    assert "--changes-interface" in tried.out
    said = line.edgefleet(*plan, "--changes-interface")
    assert (said.exit, "Input X is gone" in said.out) == (0, True)
