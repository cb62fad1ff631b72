"""Names of classes in the answers of every protocol, read from the manifest of the release."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ServedModel
from edgefleet.protocol.wire import encode
from edgefleet.serving.class_names import class_names
from edgefleet.serving.classification import classified
from edgefleet.serving.limits import MANIFEST_BYTES
from support.named_classes import NAMES, with_names
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: TinyModel) -> ServedModel:
    return with_names(model, tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, served: ServedModel
) -> Iterator[ServingProcess]:
    with serving(tmp_path_factory.mktemp("serving"), "--serve-grpc", "127.0.0.1:0") as running:
        running.apply(served)
        yield running


def best(model: TinyModel, given: np.ndarray[Any, Any]) -> list[str]:
    """The three best classes of each item, as ``index:name``."""
    order = np.argsort(-model.probabilities(given), axis=1)[:, :3]
    return [f"{at}:{NAMES[at]}" for at in order.ravel().tolist()]


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_of_triton_gets_names_over_rest(
    process: ServingProcess, model: TinyModel, binary: bool
) -> None:
    given = pixels(2)
    tensor = triton_http.InferInput("pixels", [2, 64], "FP32")
    tensor.set_data_from_numpy(given)
    wanted = triton_http.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    with triton_http.InferenceServerClient(process.address) as client:
        found = client.infer("digits", [tensor], outputs=[wanted]).as_numpy("probabilities")
    texts = [one.decode() if isinstance(one, bytes) else one for one in found.ravel()]
    assert [text.split(":", 1)[1] for text in texts] == best(model, given)


def test_the_client_of_triton_gets_names_over_grpc(
    process: ServingProcess, model: TinyModel
) -> None:
    given = pixels(2)
    tensor = triton_grpc.InferInput("pixels", [2, 64], "FP32")
    tensor.set_data_from_numpy(given)
    wanted = triton_grpc.InferRequestedOutput("probabilities", class_count=3)
    with triton_grpc.InferenceServerClient(process.status().grpc) as client:
        found = client.infer("digits", [tensor], outputs=[wanted]).as_numpy("probabilities")
    assert [one.decode().split(":", 1)[1] for one in found.ravel()] == best(model, given)


def test_tensorflow_serving_and_the_metadata_name_the_classes(
    process: ServingProcess, model: TinyModel
) -> None:
    link = HttpLink(process.url)
    given = pixels(1)
    body = encode({"examples": [{"pixels": given[0].tolist()}]})
    answer = link.request("POST", "/v1/models/digits:classify", body=body, timeout_s=10.0)
    (pairs,) = msgspec.json.decode(answer.body)["results"]
    assert [label for label, _ in pairs] == list(NAMES)
    np.testing.assert_allclose(
        [score for _, score in pairs], model.probabilities(given)[0], rtol=1e-4
    )
    metadata = msgspec.json.decode(link.request("GET", "/v2/models/digits", timeout_s=10.0).body)
    assert metadata["outputs"][0]["parameters"] == {"classes": list(NAMES)}
    assert "parameters" not in metadata["inputs"][0]
    figures = msgspec.json.decode(link.request("GET", "/ui/figures", timeout_s=10.0).body)
    counts = figures["models"][0]["classes"]
    assert [name for name, _ in counts] == list(NAMES)
    assert sum(count for _, count in counts) >= 1
    link.close()


def test_a_manifest_that_is_not_that_of_the_release_names_nothing(
    served: ServedModel, tmp_path: Path
) -> None:
    wanted = served.confirmed
    assert wanted is not None
    assert class_names(wanted) == {"probabilities": NAMES}
    data = Path(wanted.manifest_path).read_bytes()
    damaged = tmp_path / "manifest.json"
    for content in (data[:-9], b"{}", b'{"payload": "@"}', b" " * MANIFEST_BYTES + data):
        damaged.write_bytes(content)
        assert class_names(replace(wanted, manifest_path=str(damaged))) == {}
    assert class_names(replace(wanted, manifest_sha256=sha256(b"other").hexdigest())) == {}
    assert class_names(replace(wanted, manifest_path=str(tmp_path / "none"))) == {}
    assert class_names(replace(wanted, manifest_path="")) == {}  # an agent that gives no manifest


def test_a_class_without_a_name_is_its_number() -> None:
    scores = np.array([[0.25, 0.5, 1.0]])
    assert classified("x", scores, 3, ("a", "b")).tolist() == [
        ["1.000000:2", "0.500000:1:b", "0.250000:0:a"]
    ]
