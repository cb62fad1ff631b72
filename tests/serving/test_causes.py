"""The cause of a runtime's error is kept, and what stands before it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.agent.spool import outcome
from edgefleet.agent.state import Attempt
from edgefleet.base.limits import DETAIL_CHARS
from edgefleet.base.texts import shortened
from edgefleet.protocol.device import OutcomeKind
from edgefleet.serving.causes import cause

SIGNATURE = (
    "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, "
    "const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, "
    "const onnxruntime::ModelOptions&) "
)


IR = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
    f"{SIGNATURE}Unsupported model IR version: 30, max supported IR version: 13\n"
)
NODE = "Non-zero status code returned while running Reshape node. Name:'r' Status Message: "
RESHAPE = (
    f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {NODE}/src/reshape_helper.h:43 "
    "onnxruntime::ReshapeHelper::ReshapeHelper(const TensorShape&, TensorShapeVector&, bool) "
    "input_shape_size == size was false. The input tensor cannot be reshaped"
)
WHY = "input_shape_size == size was false. The input tensor cannot be reshaped"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (IR, "Unsupported model IR version: 30, max supported IR version: 13"),
        (RESHAPE, f"{NODE}{WHY}"),
        ("no signature (in brackets) at all", "no signature (in brackets) at all"),
        ("/src/a.cc:1 not closed (", "not closed ("),
        ("", "ValueError"),
    ],
)
def test_the_cause_of_an_error(text: str, kept: str) -> None:
    assert cause(ValueError(text), 300) == kept


@given(st.text(max_size=900), st.integers(20, 300))
def test_a_shortened_text_keeps_begin_and_end(text: str, chars: int) -> None:
    short = shortened(text, chars)
    assert len(short) <= chars
    assert text.startswith(short[:5].split(" ...")[0])
    assert short.endswith(text[-8:])


def test_a_long_detail_of_an_outcome_keeps_its_end() -> None:
    attempt = Attempt(
        number=1, rollout="r", action="install", model="m", release="2", manifest_sha256="0" * 64,
        confirm_after_s=1, max_attempts=2, slot="a", leaving="",
    )  # fmt: skip
    text = f"load_failed: {'x' * 900} opset 26 is not supported"
    made = outcome(attempt, OutcomeKind.REFUSED, at=1.0, detail=text)
    assert len(made.detail) == DETAIL_CHARS
    assert made.detail.startswith("load_failed: ")
    assert made.detail.endswith("opset 26 is not supported")
