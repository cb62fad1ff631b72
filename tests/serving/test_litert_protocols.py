"""A full-integer model answers every protocol as the interpreter does, and says its scales."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ServedModel, ServedRelease
from support import tiny_tflite
from support.serving_process import ServingProcess, serving
from support.tiny_tflite import FEATURES, TinyTflite, inputs

Answer = np.ndarray[Any, Any]
Ask = Callable[[ServingProcess, str, Answer], Answer]

MODELS = {"int8": "INT8", "uint8": "UINT8", "float": "FP32"}
"""The models by name, with the datatype that clients see. ``float`` is INT8 in the file."""
NUMPY = {"INT8": np.int8, "UINT8": np.uint8, "FP32": np.float32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyTflite]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "int8": tiny_tflite.classifier(folder / "int8.tflite"),
        "uint8": tiny_tflite.classifier(folder / "uint8.tflite", inside="UINT8", outside="UINT8"),
        "float": tiny_tflite.classifier(folder / "float.tflite", manifest="FP32"),
    }


@pytest.fixture(scope="module", params=["shared", pytest.param("process", marks=pytest.mark.long)])
def process(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    models: dict[str, TinyTflite],
) -> Iterator[ServingProcess]:
    with serving(tmp_path_factory.mktemp("serving"), "--serve-grpc", "127.0.0.1:0") as running:
        running.apply(
            *(
                ServedModel(
                    model=name,
                    isolation=request.param,
                    confirmed=ServedRelease(
                        release="1", variant=one.variant, quality=None, artifact_path=str(one.path)
                    ),
                )
                for name, one in models.items()
            )
        )
        yield running


def posted(
    process: ServingProcess, path: str, body: bytes, headers: dict[str, str] | None = None
) -> Any:
    answer = HttpLink(process.url).request("POST", path, body=body, headers=headers or {})
    assert answer.status == 200, answer.body
    return answer


def rest_json(process: ServingProcess, model: str, given: Answer) -> Answer:
    tensor = {"name": "x", "shape": given.shape, "datatype": MODELS[model], "data": given.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    (made,) = json.loads(posted(process, f"/v2/models/{model}/infer", body).body)["outputs"]
    assert made["datatype"] == MODELS[model]
    return np.array(made["data"], NUMPY[MODELS[model]]).reshape(made["shape"])


def rest_binary(process: ServingProcess, model: str, given: Answer) -> Answer:
    tensor = triton_http.InferInput("x", list(given.shape), MODELS[model])
    tensor.set_data_from_numpy(given, binary_data=True)
    wanted = triton_http.InferRequestedOutput("y", binary_data=True)
    with triton_http.InferenceServerClient(process.address) as client:
        return client.infer(model, [tensor], outputs=[wanted]).as_numpy("y")


def rest_raw(process: ServingProcess, model: str, given: Answer) -> Answer:
    """Each item as a body without JSON."""
    made = []
    for item in given:
        answer = posted(
            process,
            f"/v2/models/{model}/infer",
            item.tobytes(),
            {"Inference-Header-Content-Length": "0"},
        )
        made.append(answer.body[int(answer.headers["inference-header-content-length"]) :])
    return np.frombuffer(b"".join(made), given.dtype).reshape(len(given), -1)


def rows(process: ServingProcess, model: str, given: Answer) -> Answer:
    body = json.dumps({"instances": given.tolist()}).encode()
    found = json.loads(posted(process, f"/v1/models/{model}:predict", body).body)
    return np.array(found["predictions"], given.dtype)


def columns(process: ServingProcess, model: str, given: Answer) -> Answer:
    body = json.dumps({"inputs": {"x": given.tolist()}}).encode()
    found = json.loads(posted(process, f"/v1/models/{model}:predict", body).body)
    return np.array(found["outputs"], given.dtype)


def grpc_raw(process: ServingProcess, model: str, given: Answer) -> Answer:
    tensor = triton_grpc.InferInput("x", list(given.shape), MODELS[model])
    tensor.set_data_from_numpy(given)
    with triton_grpc.InferenceServerClient(process.status().grpc) as client:
        return client.infer(model, [tensor]).as_numpy("y")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ask", [rest_json, rest_binary, rest_raw, rows, columns, grpc_raw])
def test_each_protocol_answers_as_the_interpreter(
    process: ServingProcess, models: dict[str, TinyTflite], model: str, ask: Ask
) -> None:
    given = inputs(3, MODELS[model])
    if model == "float":  # the reference has QUANTIZE and DEQUANTIZE inside of the file
        path = models[model].path.with_name("reference.tflite")
        wanted = tiny_tflite.interpreted(tiny_tflite.classifier(path, outside="FP32").path, given)
    else:
        wanted = tiny_tflite.interpreted(models[model].path, given)
    for _ in range(4):  # in a worker the later ones are read and written in place
        made = ask(process, model, given)
        assert made.dtype == wanted.dtype
        np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize("model", MODELS)
def test_the_scales_are_said_as_the_interpreter_has_them(
    process: ServingProcess, models: dict[str, TinyTflite], model: str
) -> None:
    wanted = tiny_tflite.scales(models[model].path)
    assert wanted["x"]["scale"] == np.float32(0.05)
    link = HttpLink(process.url)
    metadata = json.loads(link.request("GET", f"/v2/models/{model}").body)
    shown = {
        one["name"]: one["parameters"]["quantisation"]
        for one in (*metadata["inputs"], *metadata["outputs"])
    }
    assert shown == wanted
    assert {one["datatype"] for one in metadata["inputs"]} == {MODELS[model]}
    config = json.loads(link.request("GET", f"/v2/models/{model}/config").body)
    found = {name: one["string_value"] for name, one in config["parameters"].items()}
    assert {name: json.loads(found[f"quantisation.{name}"]) for name in "xy"} == wanted
    with triton_grpc.InferenceServerClient(process.status().grpc) as client:
        same = client.get_model_config(model).config.parameters
        assert {name: one.string_value for name, one in same.items()} == found
        assert client.get_model_metadata(model).inputs[0].datatype == MODELS[model]


def test_a_client_can_convert_with_the_scales_that_it_is_told(
    process: ServingProcess, models: dict[str, TinyTflite]
) -> None:
    """Real numbers, quantised by the client for the raw model, come back as of the float one."""
    metadata = json.loads(HttpLink(process.url).request("GET", "/v2/models/int8").body)
    x, y = (metadata[side][0]["parameters"]["quantisation"] for side in ("inputs", "outputs"))
    real = (np.arange(2 * FEATURES).reshape(2, FEATURES) / 16).astype(np.float32)
    integers = np.clip(np.rint(real / np.float32(x["scale"])) + x["zero_point"], -128, 127)
    made = rest_json(process, "int8", integers.astype(np.int8)).astype(np.int32)
    back = (made - y["zero_point"]).astype(np.float32) * np.float32(y["scale"])
    np.testing.assert_array_equal(back, rest_json(process, "float", real))
