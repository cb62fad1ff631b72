"""The examples of docs/hybrid.md, with a real device and a real fallback, and requests that go on."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.agent.settings import parse
from edgefleet.base.network import HttpLink
from edgefleet.protocol.fallback import read_fallback
from edgefleet.protocol.release import Quality, TensorSpec
from edgefleet.protocol.serving import ServedModel, ServedRelease
from support.serving_process import ServingProcess, serving
from support.tiny_models import save, variant_of

PAGE = Path(__file__).parents[2] / "docs" / "hybrid.md"
EXAMPLES = re.findall(r"```sh\n(curl .*?)\n# (.*?)\n```", PAGE.read_text(), re.DOTALL)


def release_of(folder: Path, release: str) -> ServedRelease:
    path = folder / "m.onnx"
    save(
        path,
        [
            helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.eye(4, 2, dtype=np.float32), "weights")],
    )
    return ServedRelease(
        release=release,
        variant=variant_of(
            path,
            (TensorSpec(name="pixels", datatype="FP32", shape=(-1, 4)),),
            (TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),),
        ),
        quality=Quality(output="probabilities", scores="probabilities"),
        artifact_path=str(path),
    )


Pair = tuple[ServingProcess, ServingProcess]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The device of the page, and its fallback."""
    own, other = (tmp_path_factory.mktemp(name) for name in ("device", "fallback"))
    with ExitStack() as stack:
        fallback = stack.enter_context(serving(other))
        more = ("--fallback", fallback.url, "--fallback-budget", "share=100%")
        device = stack.enter_context(
            serving(own, *more, "--fallback-when", "missing,confidence=0.6")
        )
        device.activate(ServedModel(model="digits", confirmed=release_of(own, "7")))
        model = release_of(other, "3")
        fallback.apply(*(ServedModel(model=name, confirmed=model) for name in ("digits", "wine")))
        yield device, fallback


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_answers_as_shown(pair: Pair, number: int) -> None:
    command, wanted = EXAMPLES[number]
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"DEVICE": pair[0].url, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == wanted


def test_the_page_has_an_example_of_each_answer() -> None:
    assert [wanted.split("(")[0].strip() for _, wanted in EXAMPLES[:2]] == ["local", "fallback"]
    assert len(EXAMPLES) == 3


def test_the_options_of_the_page_are_settings_of_the_agent() -> None:
    (command,) = re.findall(
        r"```sh\nedgefleet agent (config.*?) > /etc", PAGE.read_text(), re.DOTALL
    )
    settings = parse(command.replace("\\\n", "").split(), {})
    assert settings.fallback == "https://infer.example"
    defaults = read_fallback(settings.fallback)
    found = read_fallback(settings.fallback, budget=settings.fallback_budget)
    assert found == defaults, "the page shows the default budget"


TENSOR = {"name": "pixels", "datatype": "FP32", "shape": [1, 4]}


def infer(
    process: ServingProcess, model: str, data: list[float]
) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"inputs": [{**TENSOR, "data": data}]}).encode()
    link = HttpLink(process.url)
    answer = link.request("POST", f"/v2/models/{model}/infer", body=body)
    link.close()
    return answer.status, dict(answer.headers), answer.body


def test_an_unsure_answer_comes_from_the_other_server_and_counts_here(pair: Pair) -> None:
    device, fallback = pair
    before = device.model().stats
    status, headers, body = infer(device, "digits", [0, 0, 0, 0])
    assert (status, headers["edgefleet-fallback"]) == (200, "confidence; answered")
    assert json.loads(body)["model_version"] == "3"
    after = device.model().stats
    assert after.requests - before.requests == 1
    assert after.confidence_sum - before.confidence_sum == pytest.approx(0.5)
    assert fallback.model("digits").stats.requests >= 1


def test_a_binary_answer_stays_whole(pair: Pair) -> None:
    body = json.dumps(
        {
            "inputs": [{**TENSOR, "parameters": {"binary_data_size": 16}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    tensor = np.array([[9, 0, 0, 0]], np.float32)
    link = HttpLink(pair[0].url)
    answer = link.request(
        "POST",
        "/v2/models/wine/infer",
        body=body + tensor.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(body))},
    )
    link.close()
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:length])
    assert head["parameters"]["answered_by"] == "fallback"
    made = np.frombuffer(answer.body[length:], np.float32)
    assert made[0] == pytest.approx(1 / (1 + np.exp(-9.0)), rel=1e-5)


@pytest.mark.long
def test_the_command_line_says_that_the_fallback_answered(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "pixels.json"
    command = [sys.executable, "-m", "edgefleet.cli.main", "infer", "digits", str(file), "--json"]
    file.write_text("[[0, 0, 0, 0]]")
    done = subprocess.run(
        [*command, "--address", pair[0].address], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["answered_by"] == "fallback"
    assert "The answer is that of the device's fallback." in done.stderr


@pytest.mark.long
def test_a_request_is_not_sent_in_a_circle(tmp_path: Path, pair: Pair) -> None:
    """The third device names the first, which has not the model: it may not ask on."""
    more = ("--fallback", pair[0].url, "--fallback-budget", "share=100%")
    with serving(tmp_path, *more) as third:
        third.activate(ServedModel(model="digits", confirmed=release_of(tmp_path, "1")))
        status, headers, _ = infer(third, "wine", [0, 0, 0, 0])
    assert (status, headers["edgefleet-answered-by"]) == (404, "local")
    assert headers["edgefleet-fallback"] == "missing; refused"


@pytest.mark.long
def test_without_the_option_no_client_is_loaded() -> None:
    code = (
        "import sys, edgefleet.serving.server; "
        "print([name for name in sys.modules if 'hybrid' in name or 'answer_reader' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
