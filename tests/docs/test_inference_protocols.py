"""The examples of docs/inference-protocols.md answer as the page shows."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.protocol.release import Quality, TensorSpec
from edgefleet.protocol.serving import ServedModel, ServedRelease
from edgefleet.serving.limits import INFERENCE
from support.serving_process import ServingProcess, serving
from support.tiny_models import save, variant_of

PAGE = Path(__file__).parents[2] / "docs" / "inference-protocols.md"
EXAMPLES = re.findall(r"```sh\n(curl .*?)\n# (.*?)\n```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """A device that serves the release of the page."""
    folder = tmp_path_factory.mktemp("page")
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
    release = ServedRelease(
        release="7",
        variant=variant_of(
            path,
            (TensorSpec(name="pixels", datatype="FP32", shape=(-1, 4)),),
            (TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),),
        ),
        quality=Quality(output="probabilities", scores="probabilities"),
        artifact_path=str(path),
    )
    with serving(folder) as running:
        running.activate(ServedModel(model="digits", confirmed=release))
        yield running


def test_the_page_has_an_example_of_each_kind() -> None:
    shown = " ".join(command for command, _ in EXAMPLES)
    for part in ("/infer", ":predict", ":classify", "classification"):
        assert part in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_answers_as_shown(process: ServingProcess, number: int) -> None:
    command, wanted = EXAMPLES[number]
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"DEVICE": process.url, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == wanted


def test_the_page_names_the_limit_of_a_body() -> None:
    assert f"The limit of {INFERENCE.body_bytes >> 20} MiB" in PAGE.read_text()
