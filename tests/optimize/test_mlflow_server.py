"""Answers of MLflow servers that are not as they should be. test_mlflow_real.py asks a real one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from edgefleet.base.errors import EdgefleetError, NetworkError, OperatorError, PublisherError
from edgefleet.optimize.inputs.mlflow_address import (
    LoggedModel,
    RegisteredModel,
    RunModel,
    is_mlflow_address,
    parsed,
)
from edgefleet.optimize.inputs.mlflow_server import MlflowServer

RUN = "0123456789abcdef" * 2
API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Canned:
    """``answers`` by path, or by path and the query's ``path``. ``asked`` are the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            f"{API}/model-versions/get": {"model_version": {"version": "3", "run_id": RUN}},
            f"{API}/model-versions/get-download-uri": {"artifact_uri": "mlflow-artifacts:/1/m"},
            f"{API}/runs/get": {"run": {"info": {"artifact_uri": "mlflow-artifacts:/1/r"}}},
            f"{FILES}?1/m": {"files": [{"path": "MLmodel"}, {"path": "data", "is_dir": True},
                                       {"path": "model.pkl"}, {"path": "conda.yaml"}]},
            f"{FILES}?1/m/data": {"files": [{"path": "model.onnx"}]},
            f"{FILES}/1/m/MLmodel": b"flavors:\n",
            f"{FILES}/1/m/data/model.onnx": b"weights",
        }  # fmt: skip
        self.asked: list[tuple[str, str]] = []


@pytest.fixture
def canned() -> Iterator[tuple[Canned, str]]:
    world = Canned()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            places = parse_qs(parts.query).get("path", [])
            key = "?".join([parts.path, *places])
            world.asked.append((key, self.headers.get("Authorization", "")))
            answer = world.answers.get(key, 404)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield world, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fetch(url: str, folder: Path, address: str = "models:/m/3", **environ: str) -> dict[str, Any]:
    server = MlflowServer(url, environ)
    try:
        return server.fetch(address, folder / "model")
    finally:
        server.close()


def test_files_that_are_read_are_fetched_with_the_credentials(
    canned: tuple[Canned, str], tmp_path: Path
) -> None:
    world, url = canned
    facts = fetch(url, tmp_path, MLFLOW_TRACKING_TOKEN="secret")
    made = tmp_path / "model"
    assert {str(one.relative_to(made)) for one in made.rglob("*.*")} == {"data/model.onnx"}
    assert (made / "MLmodel").read_bytes() == b"flavors:\n"
    assert facts == {
        "mlflow_address": "models:/m/3", "mlflow_model": "m", "mlflow_model_version": "3",
        "mlflow_run_id": RUN,
    }  # fmt: skip
    assert {header for _, header in world.asked} == {"Bearer secret"}
    world.asked.clear()
    fetch(url, tmp_path / "again", MLFLOW_TRACKING_USERNAME="u", MLFLOW_TRACKING_PASSWORD="p")
    assert world.asked[0][1] == "Basic dTpw"


@pytest.mark.parametrize(
    ("path", "answer", "error", "told"),
    [
        (f"{API}/model-versions/get", 404, PublisherError, "has no models:/m/3"),
        (f"{API}/model-versions/get", 403, OperatorError, "refuses the credentials"),
        (f"{API}/model-versions/get", 500, NetworkError, "answered 500"),
        (f"{API}/model-versions/get", b"<html>", NetworkError, "does not answer as an MLflow"),
        (f"{API}/model-versions/get", [], NetworkError, "no JSON object"),
        (f"{API}/model-versions/get", {}, NetworkError, "no 'model_version'"),
        (f"{API}/model-versions/get-download-uri", {"artifact_uri": "s3://bucket/m"},
         PublisherError, "not on the server, but at s3"),
        (f"{API}/model-versions/get-download-uri", {"artifact_uri": "file:///etc"},
         PublisherError, "not on the server, but at file"),
        (f"{API}/model-versions/get-download-uri", {"artifact_uri": "mlflow-artifacts:/1/../m"},
         PublisherError, "not on the server"),
        (f"{API}/model-versions/get-download-uri", {"artifact_uri": "models:/m/3"},
         PublisherError, "not on the server, but at models"),
        (f"{FILES}?1/m", {"files": [{"path": "../MLmodel"}]}, NetworkError, "lists a file"),
        (f"{FILES}?1/m", {"files": [{"path": "/MLmodel"}]}, NetworkError, "lists a file"),
        (f"{FILES}?1/m", {"files": [{"path": str(n)} for n in range(300)]}, PublisherError,
         "more than 200 files"),
        (f"{FILES}?1/m", {"files": [{"path": "model.onnx"}]}, PublisherError, "no file MLmodel"),
    ],
)  # fmt: skip
def test_other_answers_are_refused(
    canned: tuple[Canned, str],
    tmp_path: Path,
    path: str,
    answer: Any,
    error: type[EdgefleetError],
    told: str,
) -> None:
    world, url = canned
    world.answers[path] = answer
    with pytest.raises(error, match=told):
        fetch(url, tmp_path)
    assert not [one for one in tmp_path.rglob("*") if one.name in ("hostname", "MLmodel")]


def test_addresses_are_read() -> None:
    assert parsed("models:/digits/3") == RegisteredModel("digits", version="3")
    assert parsed("models:/a b@best") == RegisteredModel("a b", alias="best")
    assert parsed(f"models:/m-{RUN}") == LoggedModel(f"m-{RUN}")
    assert parsed(f"runs:/{RUN}/some/model") == RunModel(RUN, "some/model")
    assert not is_mlflow_address("./models/x.onnx")


@pytest.mark.parametrize(
    "address",
    ["models:/digits", "models:/digits/Production", "models:/@x", "models:/a@", "runs:/1/model",
     f"runs:/{RUN}", f"runs:/{RUN}/../x", "models:/"],
)  # fmt: skip
def test_addresses_that_name_no_model_are_refused(address: str) -> None:
    with pytest.raises(PublisherError, match="is no address of an MLflow model") as caught:
        parsed(address)
    assert (caught.value.code, caught.value.field) == ("not_a_model", "model")


@pytest.mark.parametrize("uri", ["", "file:///mlruns", "databricks"])
def test_without_a_server_the_option_is_named(uri: str) -> None:
    with pytest.raises(OperatorError) as caught:
        MlflowServer(uri)
    assert (caught.value.code, caught.value.field) == ("setting_invalid", "tracking-uri")
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
