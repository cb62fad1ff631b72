"""Every endpoint of REST with its answer: golden requests, and what is refused and why."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, OperatorError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.serving import Apply
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.bodies import plain_body
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.classification import classified
from edgefleet.serving.limits import INFERENCE
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest
from edgefleet.serving.routes import render_error
from edgefleet.serving.run_marks import RunMarks
from support.gated_model import Gated
from support.http1_wire import post, running
from support.rest_answer import answered
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels

INFER = "/v2/models/digits/infer"
ROW = [0.5] * 64
BODY = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": ROW}]}
).encode()
EVIL, GOOD = "https://evil.example", "https://page.example"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, model: TinyModel) -> Iterator[ServingProcess]:
    with serving(tmp_path_factory.mktemp("serving"), "--cors-origin", GOOD) as running_process:
        running_process.activate(model.activate("7"))
        yield running_process


@pytest.fixture
def client(process: ServingProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(process.address) as connected:
        yield connected


def ask(
    process: ServingProcess,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return HttpLink(process.url).request(method, path, body=data, headers=dict(headers or {}))


TRACE_OFF = {
    "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
    "trace_file": "", "trace_mode": "triton",
}  # fmt: skip
LOGGING = {
    "log_file": "", "log_info": False, "log_warning": True, "log_error": True,
    "log_verbose_level": 0, "log_format": "default",
}  # fmt: skip
STATUS = {
    "model_version_status": [
        {
            "version": "7",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
}
READY = [{"name": "digits", "version": "7", "state": "READY", "reason": ""}]
GOLDEN: list[tuple[str, str, object, object]] = [
    ("GET", "/health", None, {"ready": True}),
    ("GET", "/health/live", None, {"live": True}),
    ("GET", "/health/ready", None, {"ready": True}),
    ("GET", "/v2/health/live", None, {"live": True}),
    ("GET", "/v2/health/ready", None, {"ready": True}),
    ("GET", "/v2/models/digits/ready", None, {"name": "digits", "ready": True}),
    ("GET", "/v2/models/digits/versions/7/ready", None, {"name": "digits", "ready": True}),
    ("POST", "/v2/repository/index", {}, READY),
    ("POST", "/v2/repository/index", b"", READY),
    ("POST", "/v2/repository/any/index", {"ready": True}, READY),
    ("GET", "/v2/trace/setting", None, TRACE_OFF),
    ("GET", "/v2/models/digits/trace/setting", None, TRACE_OFF),
    ("POST", "/v2/trace/setting", {"trace_level": ["OFF"], "trace_rate": None}, TRACE_OFF),
    ("GET", "/v2/logging", None, LOGGING),
    ("POST", "/v2/logging", {"log_info": False}, LOGGING),
    ("GET", "/v2/systemsharedmemory/status", None, []),
    ("GET", "/v2/cudasharedmemory/region/a/status", None, []),
    ("GET", "/v1/models/digits", None, STATUS),
    ("GET", "/v1/models/digits/versions/7", None, STATUS),
]


@pytest.mark.parametrize(("method", "path", "body", "wanted"), GOLDEN)
def test_an_endpoint_answers(
    process: ServingProcess, method: str, path: str, body: object, wanted: object
) -> None:
    answer = ask(process, method, path, body)
    assert (answer.status, json.loads(answer.body)) == (200, wanted)


REFUSED: list[tuple[str, str, object, int, str]] = [
    ("POST", "/v2/repository/models/digits/load", {}, 400, "models come by rollout"),
    ("POST", "/v2/repository/models/digits/unload", {}, 400, "models come by rollout"),
    ("POST", "/v2/repository/index", {"ready": "yes"}, 400, "ready: Expected `bool | null`"),
    ("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}, 400, "trace_level: Traces"),
    ("POST", "/v2/trace/setting", [], 400, "Expected `object`"),
    ("POST", "/v2/logging", {"log_verbose_level": 1}, 400, "log_verbose_level: The log settings"),
    ("POST", "/v2/systemsharedmemory/region/a/register", {}, 400, "shared memory"),
    ("POST", "/v2/cudasharedmemory/region/a/register", {}, 400, "shared memory"),
    ("GET", "/v2/models/other/stats", None, 404, "It serves: digits."),
    ("GET", "/v2/models/digits/versions/8/config", None, 404, "The active release is 7, not 8."),
    ("GET", "/v2/models/digits/other", None, 404, "no endpoint /v2/models/digits/other"),
    ("GET", "/v3", None, 404, "There is no endpoint /v3."),
    ("GET", "/v1/models/other", None, 404, "It serves: digits."),
    ("GET", "/v1/models/digits/labels/stable", None, 400, "Labels of versions"),
    ("POST", "/v1/models/digits/labels/stable:predict", {}, 400, "Labels of versions"),
    ("POST", "/v1/models/digits/versions/8:predict", {}, 404, "The active release is 7, not 8."),
    ("POST", "/v1/models/digits:explain", {}, 404, "no endpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "sentence"), REFUSED)
def test_what_is_not_offered_is_refused_with_a_sentence(
    process: ServingProcess, method: str, path: str, body: object, status: int, sentence: str
) -> None:
    answer = ask(process, method, path, body)
    assert answer.status == status
    assert sentence in json.loads(answer.body)["error"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("DELETE", "/v2/models/digits", "GET, HEAD"),
        ("PUT", "/v2/logging", "GET, POST, HEAD"),
        ("GET", "/v1/models/digits:predict", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("OPTIONS", INFER, "POST"),
    ],
)
def test_another_method_is_told_the_right_ones(
    process: ServingProcess, method: str, path: str, allow: str
) -> None:
    answer = ask(process, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


def test_head_is_get_without_its_body(process: ServingProcess) -> None:
    got, head = (ask(process, method, "/v2/models/digits") for method in ("GET", "HEAD"))
    assert head.body == b""
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.body))


def test_the_metadata_of_both_protocols_describes_the_tensors(process: ServingProcess) -> None:
    config = json.loads(ask(process, "GET", "/v2/models/digits/config").body)
    assert (config["name"], config["platform"], config["max_batch_size"]) == (
        "digits", "onnxruntime_onnx", 8,
    )  # fmt: skip
    assert config["input"] == [{"name": "pixels", "data_type": "TYPE_FP32", "dims": [64]}]
    assert config["version_policy"] == {"specific": {"versions": ["7"]}}
    said = json.loads(ask(process, "GET", "/v1/models/digits/metadata").body)
    assert said["model_spec"] == {"name": "digits", "signature_name": "", "version": "7"}
    signature = said["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["pixels"] == {
        "name": "pixels",
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "64", "name": ""}],
            "unknown_rank": False,
        },
    }


def infer_with(**changes: object) -> dict[str, Any]:
    return {**json.loads(BODY), **changes}


def test_absent_values_may_be_null(process: ServingProcess) -> None:
    (tensor,) = infer_with()["inputs"]
    body = infer_with(
        id=None, parameters=None, outputs=None, inputs=[{**tensor, "parameters": None}]
    )
    answer = ask(process, "POST", INFER, body)
    assert answer.status == 200, answer.body
    named = infer_with(outputs=[{"name": "probabilities", "parameters": None}])
    right, other = (json.loads(one.body) for one in (ask(process, "POST", INFER, named), answer))
    assert right["outputs"] == other["outputs"]
    assert right["id"] != other["id"]


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[2:-4]),
        ("identity", BODY),
        (" GZip", gzip.compress(BODY)),
    ],
    ids=("gzip", "two members", "zlib", "raw deflate", "identity", "case"),
)
def test_a_compressed_body_is_read(process: ServingProcess, coding: str, data: bytes) -> None:
    plain, packed = (
        json.loads(ask(process, "POST", INFER, body, headers).body)
        for body, headers in ((BODY, {}), (data, {"Content-Encoding": coding}))
    )
    assert packed["outputs"] == plain["outputs"]


def test_a_body_that_grows_beyond_the_limit_is_refused(process: ServingProcess) -> None:
    bomb = gzip.compress(bytes(INFERENCE.body_bytes + 1), 1)
    answer = ask(process, "POST", INFER, bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")


def test_compressed_bodies_that_wait_have_one_bounded_memory() -> None:
    bodies = BodyMemory(1 << 20)
    data = gzip.compress(bytes(300_000))
    request = Request("POST", INFER, "", {b"content-encoding": b"gzip"}, data)
    kept = [plain_body(request, bodies) for _ in range(3)]
    assert {len(one) for one in kept} == {300_000}
    with pytest.raises(DeviceError, match="overloaded"):
        plain_body(request, bodies)
    kept.clear()
    assert len(plain_body(request, bodies)) == 300_000


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.2, deflate;q=0.7", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("gzip;q=x", None),
    ],
)
def test_a_long_reply_is_compressed_as_the_client_accepts(
    process: ServingProcess, accepted: str, coding: str | None
) -> None:
    answer = ask(process, "GET", "/metrics", None, {"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    body = answer.body if coding is None else zlib.decompress(answer.body, 47)
    assert body.startswith(b"# HELP edgefleet_serving_ready")


def test_the_client_compresses_both_ways(
    client: triton.InferenceServerClient, model: TinyModel
) -> None:
    given = pixels(8)
    tensor = triton.InferInput("pixels", list(given.shape), "FP32")
    tensor.set_data_from_numpy(given)
    for coding in ("gzip", "deflate"):
        for binary in (True, False):
            wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
            got = client.infer(
                "digits",
                [tensor],
                outputs=wanted,
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            np.testing.assert_allclose(
                got.as_numpy("probabilities"), model.probabilities(given), rtol=1e-4
            )


def test_cors_is_for_the_origins_of_the_setting_alone(process: ServingProcess) -> None:
    asked = {"Origin": GOOD, "Access-Control-Request-Method": "POST"}
    before = ask(process, "OPTIONS", INFER, None, asked)
    assert before.status == 204
    assert before.headers["access-control-allow-origin"] == GOOD
    assert before.headers["access-control-allow-methods"] == "POST"
    assert "content-type" in before.headers["access-control-allow-headers"]
    for body, status in ((BODY, 200), (b"{", 400)):
        answer = ask(process, "POST", INFER, body, {"Origin": GOOD})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, GOOD)
        assert answer.headers["vary"] == "Origin"
        other = ask(process, "POST", INFER, body, {"Origin": EVIL})
        assert (other.status, other.headers.get("access-control-allow-origin")) == (status, None)
    assert ask(process, "OPTIONS", INFER, None, asked | {"Origin": EVIL}).status == 405


def test_any_origin_may_be_allowed() -> None:
    rest = Rest(ModelHost(), origins=("*",))
    reply = rest(Request("GET", "/v2/health/live", "", {b"origin": EVIL.encode()}, b""))
    assert isinstance(reply, Reply)
    assert ("Access-Control-Allow-Origin", "*") in reply.headers
    plain = rest(Request("GET", "/v2/health/live", "", {}, b""))
    assert isinstance(plain, Reply)
    assert plain.headers == ()


@pytest.mark.parametrize("binary", [True, False])
def test_the_classes_of_an_output_come_in_order(
    client: triton.InferenceServerClient, model: TinyModel, binary: bool
) -> None:
    given = pixels(2)
    tensor = triton.InferInput("pixels", [2, 64], "FP32")
    tensor.set_data_from_numpy(given)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    got = client.infer("digits", [tensor], outputs=[wanted]).as_numpy("probabilities")
    assert got.shape == (2, 3)
    for texts, scores in zip(got.tolist(), model.probabilities(given), strict=True):
        pairs = [(one.decode() if isinstance(one, bytes) else one).split(":") for one in texts]
        assert [int(index) for _, index in pairs] == np.argsort(-scores)[:3].tolist()
        np.testing.assert_allclose(
            [float(value) for value, _ in pairs], sorted(scores)[:-4:-1], atol=2e-6
        )


def test_equal_scores_are_in_the_order_of_their_classes() -> None:
    made = classified("x", np.array([[3, 1, 3], [0, 0, 0]]), 2)
    assert made.tolist() == [["3:0", "3:2"], ["0:0", "0:1"]]
    assert classified("x", np.array([0.5, 2.0]), 9).tolist() == ["2.000000:1", "0.500000:0"]
    with pytest.raises(DeviceError, match="not finite"):
        classified("x", np.array([[np.nan]]), 1)


def test_statistics_count_items_runs_and_durations(
    client: triton.InferenceServerClient, process: ServingProcess
) -> None:
    def stats() -> dict[str, Any]:
        (found,) = client.get_inference_statistics("digits", "7")["model_stats"]
        return dict(found)

    before = stats()
    for items in (1, 3, 3):
        tensor = triton.InferInput("pixels", [items, 64], "FP32")
        tensor.set_data_from_numpy(pixels(items))
        client.infer("digits", [tensor])
    after = stats()
    assert after["inference_count"] == before["inference_count"] + 7
    assert after["execution_count"] == before["execution_count"] + 3
    assert after["last_inference"] > before["last_inference"] - 1
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        now, then = after["inference_stats"][part], before["inference_stats"][part]
        assert now["count"] == then["count"] + 3, part
        assert now["ns"] >= then["ns"], part
    times = {part: one["ns"] for part, one in after["inference_stats"].items()}
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert times["success"] == sum(times[part] for part in parts)

    def runs(of: Mapping[str, Any], size: int) -> int:
        found = [one for one in of["batch_stats"] if one["batch_size"] == size]
        return int(found[0]["compute_infer"]["count"]) if found else 0

    assert runs(after, 3) == runs(before, 3) + 2
    assert after["memory_usage"][0]["byte_size"] > 0
    everything = json.loads(ask(process, "GET", "/v2/models/stats").body)["model_stats"]
    assert [one["name"] for one in everything] == ["digits"]


def test_the_client_reads_the_extensions(client: triton.InferenceServerClient) -> None:
    assert client.get_model_repository_index() == READY
    assert client.get_model_config("digits")["max_batch_size"] == 8
    assert client.get_trace_settings("digits") == TRACE_OFF
    assert client.get_log_settings() == LOGGING
    assert client.get_system_shared_memory_status() == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    for refused in (
        lambda: client.load_model("digits"),
        lambda: client.unload_model("digits"),
        lambda: client.update_trace_settings("digits", {"trace_level": ["TIMESTAMPS"]}),
        lambda: client.update_log_settings({"log_verbose_level": 1}),
        lambda: client.register_system_shared_memory("a", "/a", 64),
    ):
        with pytest.raises(InferenceServerException, match=r"\[400\] .*(rollout|not|cannot)"):
            refused()


def test_a_picture_of_19_mb_passes(process: ServingProcess) -> None:
    body = bytes(3 * 1280 * 1280 * 4)
    answer = ask(process, "POST", INFER, body, {"Inference-Header-Content-Length": "0"})
    assert (answer.status, json.loads(answer.body)["error"]) == (
        400, "pixels: FP32 [1, 64] has 256 bytes, not 19660800.",
    )  # fmt: skip


def with_parameters(**parameters: object) -> Request:
    return Request("POST", INFER, "", {}, json.dumps(infer_with(parameters=parameters)).encode())


def test_a_request_is_dropped_after_its_timeout_and_never_runs(model: TinyModel) -> None:
    async def story() -> None:
        host, gated = ModelHost(), Gated()
        active = ActiveRelease("digits", model.served(), gated, marks=RunMarks())
        host.routes = {"digits": active}
        rest = Rest(host)
        first = rest(with_parameters())
        late = rest(with_parameters(timeout=1))
        assert not isinstance(first, Reply)
        assert not isinstance(late, Reply)
        running_first = asyncio.ensure_future(first)
        with pytest.raises(NetworkError, match="timeout") as caught:
            await late
        assert render_error(caught.value).status == 504
        await asyncio.sleep(0)  # the loop tells the thread of the model
        gated.gate.set()
        assert (await running_first).status == 200
        live = active.stats.live()
        assert (live.requests, live.refusals, live.in_flight) == (1, {"timeout": 1}, 0)
        assert active.stats.durations.runs == 1
        patient = rest(with_parameters(timeout=60_000_000))
        assert not isinstance(patient, Reply)
        assert (await patient).status == 200
        await host.close()

    asyncio.run(story())


def test_a_default_value_of_a_schedule_is_no_wish(model: TinyModel) -> None:
    host = ModelHost()
    asyncio.run(host.apply(Apply(generation=1, models=(model.activate(),))))
    defaults = {"priority": 0, "timeout": 0, "sequence_id": 0, "sequence_start": False}
    reply = answered(Rest(host), with_parameters(**defaults, sequence_end=None, custom="kept"))
    assert reply.status == 200


def test_the_last_reply_before_shutdown_says_close(model: TinyModel) -> None:
    host, gated = ModelHost(), Gated()

    async def release() -> ActiveRelease:
        return ActiveRelease("digits", model.served(), gated, marks=RunMarks())

    host.routes = {"digits": asyncio.run(release())}
    with running(Rest(host), render_error=render_error) as server:
        raw = server.connect()
        raw.send(post(INFER, BODY))
        while not host.routes["digits"].stats.in_flight:
            pass
        closing = server.begin_close()
        gated.gate.set()
        reply = raw.answer()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert raw.ended()
        closing.result(20)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OperatorError("bad_request", "It is wrong.", field="pixels"), "pixels: It is wrong."),
        (OperatorError("bad_request", "It is wrong."), "It is wrong."),
        (OperatorError("bad_request", "Long.", field="x" * 900), f"{'x' * 64}: Long."),
    ],
)
def test_the_one_error_string_names_the_tensor(error: EdgefleetError, text: str) -> None:
    assert json.loads(render_error(error).body)["error"] == text
