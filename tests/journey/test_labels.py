"""Late labels from a person and from a local program, on real processes to the figures shown."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet.base.network import HttpLink
from edgefleet.protocol.labels import Label, Labelled, Truth
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.rollout import (
    Command,
    GateSpec,
    LabelEvidence,
    RolloutSpec,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.wire import decode, encode
from edgefleet.security.signing import PublisherKey
from support.agent_process import AgentProcess
from support.command_line import CommandLine
from support.hub_process import HubProcess, running_hub
from support.tiny_models import pixels
from support.tiny_releases import publish, tiny_release

pytestmark = pytest.mark.slow

DEVICE = "cam-1"
GATE = GateSpec(min_sample=1, soak_s=0.2, confirm_after_s=1.0, max_latency_p95_ms=60_000.0)
WAIT_S = 60.0


@dataclass
class Line:
    """A hub and one device on a production line."""

    folder: Path
    hub: HubProcess
    agent: AgentProcess
    key: PublisherKey

    def roll_out(self, release: str) -> str:
        """Publish a release and roll it out until it is completed, and in its bake."""
        client = self.hub.client()
        publish(client, self.key, tiny_release(self.folder, release))
        spec = RolloutSpec(
            model="digits", release=release, waves=(WaveSpec(percent=100),), gate=GATE, bake_s=600
        )
        rollout = client.plan(spec).id
        client.command(rollout, Verb.START, Command())
        until = time.monotonic() + WAIT_S
        while client.rollout(rollout).status is not Status.COMPLETED:
            assert time.monotonic() < until, client.rollout(rollout)
            time.sleep(0.1)
        return rollout

    def infer(self, count: int) -> list[tuple[str, str, int]]:
        """Ask the device. Returns id, release and top class of each answer."""
        data = pixels(1)
        tensor = {
            "name": "pixels", "shape": list(data.shape), "datatype": "FP32",
            "data": data.reshape(-1).tolist(),
        }  # fmt: skip
        link, body = HttpLink(f"http://{self.agent.serve}"), json.dumps({"inputs": [tensor]})
        found: list[tuple[str, str, int]] = []
        for _ in range(count):
            said: dict[str, Any] = json.loads(
                link.request("POST", "/v2/models/digits/infer", body=body.encode()).body
            )
            top = int(np.argmax(said["outputs"][0]["data"]))
            found.append((said["id"], said["model_version"], top))
        return found

    def labels(self, rollout: str) -> LabelEvidence:
        return self.hub.client().rollout(rollout).evidence.labels

    def wait_for(self, rollout: str, wanted: LabelEvidence) -> None:
        until = time.monotonic() + WAIT_S
        while self.labels(rollout) != wanted:
            assert time.monotonic() < until, (self.labels(rollout), self.agent.log())
            time.sleep(0.1)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(tmp_path / "hub", interval_s=0.3, offline_after_s=60))
        key = PublisherKey.generate()
        (claim,) = hub.client().claim(ClaimRequest(count=1)).claims
        place = tmp_path / "device"
        place.mkdir()
        agent = AgentProcess(place, hub, key, claim=claim, name=DEVICE)
        stack.callback(agent.end)
        agent.start()
        agent.wait(lambda state: state.facts_known)
        yield Line(tmp_path, hub, agent, key)


def test_late_labels_reach_the_figures_of_both_releases(line: Line, tmp_path: Path) -> None:
    line.roll_out("1")
    before = line.infer(30)
    rollout = line.roll_out("2")
    after = line.infer(20)
    assert {release for _, release, _ in before} == {"1"}
    assert {release for _, release, _ in after} == {"2"}

    station = Truth(labels=tuple(Label(id=name, truth=top) for name, _, top in after[:5]))
    local = HttpLink(f"http://{line.agent.serve}")
    said = local.request("POST", "/v2/models/digits/truth", body=encode(station))
    assert decode(said.body, Labelled) == Labelled(labelled=5, correct=5)

    rows = [f"{name},{top}" for name, _, top in before[:27]]
    rows += [f"{name},{(top + 1) % 10}" for name, _, top in [*before[27:], *after[5:]]]
    (tmp_path / "labels.csv").write_text("\n".join(["id,truth", *rows, "forgotten,1"]))
    edgefleet = CommandLine(
        tmp_path, {"EDGEFLEET_HUB": line.hub.url, "EDGEFLEET_DATA_DIR": str(line.hub.data_dir)}
    )
    file = str(tmp_path / "labels.csv")
    added = edgefleet("truth", "add", DEVICE, "digits", "--file", file, "--person", "alice")
    assert added.exit == 0, added.err
    assert added.out.startswith(f"46 labels added for digits on {DEVICE}")

    wanted = LabelEvidence(canary=20, canary_correct=5, control=30, control_correct=27, unmatched=1)
    line.wait_for(rollout, wanted)
    text = "25 % of 20 labels, control 90 % of 30 labels; 1 label found no answer"
    shown = edgefleet("rollout", "show", rollout).out
    assert text in " ".join(shown.split())
    assert f"Labelled accuracy of release 2: {text}." in edgefleet("rollout", "why", rollout).out
    assert "alice" in edgefleet("audit").out

    assert edgefleet("truth", "add", DEVICE, "digits", "--file", file).exit == 0
    line.wait_for(rollout, LabelEvidence(
        canary=20, canary_correct=5, control=30, control_correct=27, unmatched=2
    ))  # fmt: skip
    assert line.hub.client().device(DEVICE).labels_waiting == 0


def test_a_wrong_label_on_the_command_line_is_refused(line: Line, tmp_path: Path) -> None:
    line.roll_out("1")
    edgefleet = CommandLine(
        tmp_path, {"EDGEFLEET_HUB": line.hub.url, "EDGEFLEET_DATA_DIR": str(line.hub.data_dir)}
    )
    wrong = edgefleet("truth", "add", DEVICE, "digits", "a=seven")
    assert wrong.exit != 0
    assert "a=seven" in wrong.err
    nothing = edgefleet("truth", "add", DEVICE, "digits")
    assert "No label is given." in nothing.err
    span = edgefleet("truth", "add", DEVICE, "digits", "--since", "0", "--truth", "1")
    assert "Give an id, or both since and until." in span.err
