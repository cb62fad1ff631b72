"""The REST API of TensorFlow Serving: the calls that its documentation shows, and refused ones."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Request
from edgefleet.protocol.release import Artifact, Datatype, Quality, TensorSpec, Variant
from edgefleet.protocol.serving import ServedRelease
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest
from edgefleet.serving.routes import render_error
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.runtime import Tensor
from support.rest_answer import answered

Specs = Mapping[str, tuple[Datatype, tuple[int, ...]]]


class Computed:
    """A fast model that gives each output what the test computes of the inputs."""

    run_us = 5
    threads: Sequence[int] = ()

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self.outputs = outputs
        self.seen: dict[str, Tensor] = {}

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        self.seen = dict(inputs)
        return [self.outputs[name](inputs) for name in outputs]

    def bind(self, inputs: Any, outputs: Any) -> Any:
        raise NotImplementedError


def serve(inputs: Specs, outputs: Specs, made: Mapping[str, Any], quality: str = "") -> Rest:
    def specs(of: Specs) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, datatype=datatype, shape=shape)
            for name, (datatype, shape) in of.items()
        )

    variant = Variant(
        profile="generic_x86", runtime="onnx", precision="fp32", max_batch=8,
        artifact=Artifact(sha256="0" * 64, size_bytes=1), inputs=specs(inputs),
        outputs=specs(outputs), memory_limit_mib=64,
    )  # fmt: skip
    wanted = ServedRelease(
        release="3",
        variant=variant,
        quality=Quality(output=quality, scores="probabilities") if quality else None,
        artifact_path="",
    )
    host = ModelHost()
    host.routes = {"m": ActiveRelease("m", wanted, Computed(made), marks=RunMarks())}
    return Rest(host)


def ask(rest: Rest, verb: str, body: object, version: str = "") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        reply = answered(rest, Request("POST", f"/v1/models/m{version}:{verb}", "", {}, data))
    except EdgefleetError as error:
        reply = render_error(error)
    return reply.status, json.loads(reply.body)


def half_plus_two() -> Rest:
    return serve(
        {"x": ("FP32", (-1,))}, {"y": ("FP32", (-1,))}, {"y": lambda given: given["x"] / 2 + 2}
    )


def two_sided() -> Rest:
    """Two inputs and two outputs, and a text that is binary by its name."""
    return serve(
        {"tag": ("BYTES", (-1,)), "signal": ("INT32", (-1, 2))},
        {"sum": ("INT64", (-1,)), "tag_bytes": ("BYTES", (-1,))},
        {
            "sum": lambda given: given["signal"].sum(axis=1).astype(np.int64),
            "tag_bytes": lambda given: given["tag"],
        },
    )


def test_the_documented_predict_in_rows_and_columns() -> None:
    rest = half_plus_two()
    assert ask(rest, "predict", {"instances": [1.0, 2.0, 5.0]}) == (
        200, {"predictions": [2.5, 3.0, 4.5]},
    )  # fmt: skip
    assert ask(rest, "predict", {"inputs": [1, 2], "signature_name": "serving_default"}) == (
        200, {"outputs": [2.5, 3.0]},
    )  # fmt: skip
    assert ask(rest, "predict", {"instances": [{"x": 4}]}, "/versions/3")[1] == {
        "predictions": [4.0]
    }
    assert ask(rest, "predict", {"inputs": {"x": [4]}, "instances": None})[1] == {"outputs": [4.0]}


def test_several_inputs_and_outputs_are_objects_by_name() -> None:
    rows = [
        {"tag": "foo", "signal": [1, 2]},
        {"tag": {"b64": base64.b64encode("é".encode()).decode()}, "signal": [3, 4]},
    ]
    b64 = [{"b64": "Zm9v"}, {"b64": "w6k="}]
    assert ask(two_sided(), "predict", {"instances": rows}) == (
        200,
        {"predictions": [{"sum": 3, "tag_bytes": b64[0]}, {"sum": 7, "tag_bytes": b64[1]}]},
    )
    columns = {"tag": ["foo", {"b64": "w6k="}], "signal": [[1, 2], [3, 4]]}
    assert ask(two_sided(), "predict", {"inputs": columns}) == (
        200, {"outputs": {"sum": [3, 7], "tag_bytes": b64}},
    )  # fmt: skip


def test_a_bare_text_may_be_binary() -> None:
    rest = serve({"t": ("BYTES", (-1,))}, {"u": ("BYTES", (-1,))}, {"u": lambda given: given["t"]})
    assert ask(rest, "predict", {"instances": [{"b64": "aGk="}, "ho"]})[1] == {
        "predictions": ["hi", "ho"]
    }


def test_numbers_that_are_not_finite_go_in_and_out() -> None:
    status, said = ask(half_plus_two(), "predict", b'{"instances": [NaN, Infinity, -Infinity, 2]}')
    assert status == 200
    assert math.isnan(said["predictions"][0])
    assert said["predictions"][1:] == [math.inf, -math.inf, 3.0]


def classifier_of_two() -> Rest:
    return serve(
        {"a": ("FP32", (-1,)), "b": ("FP32", (-1, 2))},
        {"scores": ("FP32", (-1, 2)), "age": ("FP32", (-1, 1))},
        {
            "scores": lambda given: given["b"],
            "age": lambda given: given["a"].reshape(-1, 1),
        },
        quality="scores",
    )


def test_the_documented_classify_and_regress() -> None:
    body = {
        "context": {"a": 7},
        "examples": [{"b": [0.25, 0.75]}, {"b": [0.5, 0.5], "a": [8.0], "unused": "x"}],
    }
    assert ask(classifier_of_two(), "classify", body) == (
        200, {"results": [[["0", 0.25], ["1", 0.75]], [["0", 0.5], ["1", 0.5]]]},
    )  # fmt: skip
    assert ask(classifier_of_two(), "regress", body) == (200, {"results": [7.0, 8.0]})


def test_an_answer_counts_and_takes_a_label_as_in_the_other_protocol() -> None:
    rest = classifier_of_two()
    assert ask(rest, "classify", {"examples": [{"a": 1, "b": [0.25, 0.75]}]})[0] == 200
    host = rest._host  # noqa: SLF001 - the counters of the process
    live = host.routes["m"].stats.live()
    assert (live.requests, live.confidence_count, live.confidence_sum) == (1, 1, 0.75)
    assert ask(rest, "predict", {"instances": [1]})[0] == 400
    assert host.routes["m"].stats.live().refused == 1


REFUSED: list[tuple[Any, str, object, str]] = [
    (half_plus_two, "predict", {}, "either instances or inputs"),
    (half_plus_two, "predict", {"instances": [1], "inputs": [1]}, "either instances or inputs"),
    (half_plus_two, "predict", {"instances": []}, "x: "),
    (half_plus_two, "predict", {"instances": 5}, "instances: The instances must be a list"),
    (half_plus_two, "predict", {"instances": [[1]]}, "x: data is not a FP32 tensor"),
    (half_plus_two, "predict", {"instances": ["a"]}, "x: data is not a FP32 tensor"),
    (half_plus_two, "predict", {"instances": [True]}, "x: data is not a FP32 tensor"),
    (half_plus_two, "predict", {"instances": [None]}, "x: data is not a FP32 tensor"),
    (half_plus_two, "predict", {"instances": [1] * 9}, "x: The batch has 9 items; 8 are allowed."),
    (half_plus_two, "predict", {"instances": [{"y": 1}]}, "y: This input is unknown"),
    (half_plus_two, "predict", {"instances": [{"x": 1}, 2]}, "All instances must name the same"),
    (half_plus_two, "predict", {"inputs": {}}, "x: This input is missing."),
    (half_plus_two, "predict", {"inputs": {"b64": "aGk="}}, "x: data is not a FP32 tensor"),
    (half_plus_two, "predict", {"instances": [1], "signature_name": "other"}, "signature_name: "),
    (half_plus_two, "predict", b"{", "Invalid JSON"),
    (half_plus_two, "predict", b"NaN", "The body must be a JSON object."),
    (half_plus_two, "predict", b'{"instances": [NaN', "Invalid JSON"),
    (half_plus_two, "classify", {"examples": [{"x": 1}]}, "classify needs a model with one output"),
    (two_sided, "predict", {"instances": [1]}, "name each value"),
    (two_sided, "predict", {"inputs": {"tag": ["a"], "signal": [[1.5, 2]]}}, "signal: data is not"),
    (two_sided, "predict", {"inputs": {"tag": ["a"], "signal": [[1]]}}, "signal: The model needs"),
    (two_sided, "predict", {"inputs": {"tag": ["a", "b"], "signal": [[1, 2]]}}, "the batch"),
    (two_sided, "predict", {"inputs": {"tag": [{"b64": "_"}], "signal": [[1, 2]]}}, "not base64"),
    (two_sided, "predict", {"inputs": {"tag": [{"b64": 1}], "signal": [[1, 2]]}}, "not base64"),
    (two_sided, "predict", {"inputs": {"tag": [{"b64": "/w=="}], "signal": [[1, 2]]}}, "UTF-8"),
    (classifier_of_two, "classify", {"examples": []}, "examples: The examples must be a list"),
    (classifier_of_two, "classify", {"examples": [1]}, "examples: An example must be an object"),
    (classifier_of_two, "classify", {"examples": [{"a": 1}]}, "b: This input is missing."),
    (classifier_of_two, "classify", {"examples": [{"a": 1, "b": [1]}]}, "b: The model needs shape"),
    (classifier_of_two, "regress", {"examples": [{}], "context": 1}, "context: The context must"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_does_not_fit_is_a_typed_400(number: int) -> None:
    make, verb, body, sentence = REFUSED[number]
    status, said = ask(make(), verb, body)
    assert status == 400
    assert sentence in said["error"]
    assert said["code"] == "bad_request"


def test_an_output_without_rows_is_for_columns_alone() -> None:
    rest = serve(
        {"x": ("FP32", (-1,))}, {"mean": ("FP32", ())},
        {"mean": lambda given: np.asarray(given["x"].mean(), np.float32)},
    )  # fmt: skip
    status, said = ask(rest, "predict", {"instances": [1, 3]})
    assert (status, said["error"][:36]) == (400, "mean: This output has no row for eac")
    assert ask(rest, "predict", {"inputs": [1, 3]}) == (200, {"outputs": 2.0})


def test_nothing_is_predicted_before_the_first_release() -> None:
    assert ask(Rest(ModelHost()), "predict", {"instances": [1]})[0] == 503


def test_bf16_is_numbers_rounded_to_the_nearest() -> None:
    seen: list[Tensor] = []

    def same(inputs: Mapping[str, Tensor]) -> Tensor:
        seen.append(inputs["x"])
        return inputs["x"]

    rest = serve({"x": ("BF16", (-1, 2))}, {"y": ("BF16", (-1, 2))}, {"y": same}, "y")
    assert ask(rest, "predict", {"instances": [[1 + 2**-8, 0.1], [3, -4]]}) == (
        200, {"predictions": [[1.0, 0.10009765625], [3.0, -4.0]]},
    )  # fmt: skip
    _, got = ask(rest, "predict", b'{"instances": [[NaN, -Infinity]]}')
    assert (math.isnan(got["predictions"][0][0]), got["predictions"][0][1]) == (True, -math.inf)
    assert seen[-1].view(np.uint16).tolist() == [[0x7FC0, 0xFF80]]
    assert ask(rest, "classify", {"examples": [{"x": [0.25, 0.75]}]})[1] == {
        "results": [[["0", 0.25], ["1", 0.75]]]
    }
    status, refused = ask(rest, "predict", {"instances": [[3.4e38, 0]]})
    assert (status, refused["error"]) == (
        400, "x: data is not a BF16 tensor: a number is too large.",
    )  # fmt: skip
