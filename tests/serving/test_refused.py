"""Refused requests are counted by kind, and an answer that is none is an error of the release."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.device import REFUSAL_CHARS, Refusal
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.declared import DeclaredInputs
from edgefleet.serving.limits import TICK_US
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.run_times import RunTimes, size_class
from edgefleet.serving.runtime import PlainModel, Tensor
from edgefleet.serving.stats import Stats
from edgefleet.serving.tensors import InferRequest, InputTensor, read_inputs
from support.tiny_models import TinyModel, classifier, pixels

PATH = "/v2/models/digits/infer"
RIGHT: dict[str, Any] = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}


class Answering(PlainModel):
    """A fast model that gives this output."""

    def __init__(self, made: Tensor) -> None:
        self.made = made

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        return [self.made for _ in outputs]


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "m.onnx")


def app(model: TinyModel, made: Tensor | None = None) -> tuple[OpenInference, Stats]:
    """An application that serves the model, and the counters of its release 3.

    Its runs are too slow for a batch, and fast enough to be answered at once.
    """
    host = ModelHost()
    loaded = Answering(np.full((1, 10), 0.1, np.float32) if made is None else made)
    times = RunTimes()
    for batch in (1, 2):
        times.learn(((size_class({"pixels": pixels(batch)}), 2.0 * TICK_US),))  # on the event loop
    active = ActiveRelease("digits", model.served("3"), loaded, marks=RunMarks(), times=times)
    host.routes = {"digits": active}
    return OpenInference(host), active.stats


def body(*, outputs: Sequence[object] = (), **changes: object) -> bytes:
    return json.dumps({"inputs": [{**RIGHT, **changes}], "outputs": list(outputs)}).encode()


REFUSED: dict[str, tuple[str, bytes, Refusal, str]] = {
    "another input": (
        PATH, body(name="image"), Refusal.UNKNOWN_INPUT,
        "clients send `image`, release 3 wants `pixels`",
    ),
    "another shape": (
        PATH, body(shape=[1, 32], data=[0.5] * 32), Refusal.SHAPE,
        "clients send `pixels` of shape [1, 32], release 3 wants [-1, 64]",
    ),
    "a larger batch": (
        PATH, body(shape=[9, 64], data=[0.5] * 576), Refusal.SHAPE,
        "clients send batches of 9, release 3 wants 8 or fewer",
    ),
    "another datatype": (
        PATH, body(datatype="FP64"), Refusal.DATATYPE,
        "clients send `pixels` as `FP64`, release 3 wants FP32",
    ),
    "another output": (
        PATH, body(outputs=[{"name": "scores"}]), Refusal.UNKNOWN_OUTPUT,
        "clients send output `scores`, release 3 wants `probabilities`",
    ),
    "another version": (
        "/v2/models/digits/versions/2/infer", body(), Refusal.VERSION,
        "clients send version `2`, release 3 wants `3` or none",
    ),
    "no JSON": (PATH, b"{", Refusal.MALFORMED, ""),
    "data of another length": (PATH, body(data=[0.5]), Refusal.MALFORMED, ""),
    "an input twice": (
        PATH, json.dumps({"inputs": [RIGHT, RIGHT]}).encode(), Refusal.MALFORMED, ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_counts_by_its_kind_and_says_how_the_two_differ(
    model: TinyModel, name: str
) -> None:
    path, data, kind, example = REFUSED[name]
    serve, stats = app(model)
    with pytest.raises(EdgefleetError):
        serve(Request("POST", path, "", {}, data))
    live = stats.live()
    assert (live.requests, live.errors, live.refused) == (0, 0, 1)
    assert live.refusals == {kind: 1}
    assert live.refusal_example == example


def test_a_missing_input_is_named_with_what_was_sent() -> None:
    specs = [TensorSpec(name=name, datatype="INT8", shape=(-1, 1)) for name in ("left", "right")]
    sent = InputTensor(name="left", shape=(1, 1), datatype="INT8", data=msgspec.Raw(b"[0]"))
    stats = Stats()
    with pytest.raises(EdgefleetError) as caught:
        read_inputs(InferRequest(inputs=(sent,)), memoryview(b""), DeclaredInputs(specs, 5))
    stats.refuse(caught.value, "3")
    assert stats.live().refusals == {Refusal.MISSING_INPUT: 1}
    assert stats.live().refusal_example == "clients send `left`, release 3 wants `right`, too"


def test_a_full_queue_is_a_kind_too() -> None:
    stats = Stats()
    stats.refuse(DeviceError("overloaded", "32 inferences are waiting."), "3")
    assert stats.live().refusals == {Refusal.QUEUE_FULL: 1}


def test_a_name_of_a_client_stays_short_and_printable(model: TinyModel) -> None:
    serve, stats = app(model)
    with pytest.raises(EdgefleetError):
        serve(Request("POST", PATH, "", {}, body(name="`\n\x1b[2J" + 5000 * "x")))
    example = stats.live().refusal_example
    assert len(example) <= REFUSAL_CHARS
    assert example.isprintable()
    assert example.count("`") == 4


def test_the_example_is_of_the_most_frequent_kind(model: TinyModel) -> None:
    serve, stats = app(model)
    for data in (body(datatype="FP64"), body(name="image"), body(name="image"), b"{", b"{", b"{"):
        with pytest.raises(EdgefleetError):
            serve(Request("POST", PATH, "", {}, data))
    assert stats.live().refusal_example == "clients send `image`, release 3 wants `pixels`"


UNANSWERABLE = {
    "not finite": np.full((1, 10), np.nan, np.float32),
    "infinite": np.full((1, 10), np.inf, np.float32),
    "another shape": np.full((1, 9), 0.1, np.float32),
    "another rank": np.full((10,), 0.1, np.float32),
    "another datatype": np.full((1, 10), 0.1, np.float64),
}


@pytest.mark.parametrize("name", UNANSWERABLE)
def test_an_output_that_cannot_be_answered_is_an_error_of_the_release(
    model: TinyModel, name: str
) -> None:
    serve, stats = app(model, UNANSWERABLE[name])
    with pytest.raises(DeviceError, match="inference_failed"):
        serve(Request("POST", PATH, "", {}, body()))
    live = stats.live()
    assert (live.requests, live.errors, live.refused) == (1, 1, 0)


def test_scores_that_are_not_finite_are_an_error_in_binary_form_too(model: TinyModel) -> None:
    serve, stats = app(model, UNANSWERABLE["not finite"])
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    reply = serve(Request("POST", PATH, "", {}, body(outputs=[wanted])))
    assert isinstance(reply, Reply)
    assert reply.status == 200
    live = stats.live()
    assert (live.requests, live.errors, live.confidence_count) == (1, 1, 0)
