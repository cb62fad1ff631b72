"""Short forms of bench/overload.py and bench/swaps.py, and the largest bodies. No test measures time."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ServedModel
from edgefleet.protocol.wire import decode
from support.serving_process import serving

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "bench"))  # its modules import each other by name
try:
    import overload
    import serving_models
    import swaps
finally:
    sys.path.pop(0)

pytestmark = pytest.mark.long


def test_health_is_answered_beside_idle_connections_long_bodies_and_long_replies(
    tmp_path: Path,
) -> None:
    found = overload.run_beside(tmp_path, 4.0)
    assert (found["health_failed"], found["other_errors"]) == (0, 0)
    assert found["idle_connections"] == 256
    assert found["long_bodies"] >= 1
    assert found["long_replies"] >= 1
    assert found["health_asked"] >= 4
    assert found.get("oom_kills", 0) == 0


def test_four_times_the_load_is_refused_with_a_time_to_retry(tmp_path: Path) -> None:
    found = overload.run_overload(tmp_path, 4.0, megabytes=20)
    assert found["refused"] > 0
    assert (found["other_errors"], found["without_retry_after"]) == (0, 0)
    assert found["health_failed"] == 0
    assert found.get("oom_kills", 0) == 0


def test_a_model_of_100_mb_is_swapped_and_overloaded_in_a_small_pod(tmp_path: Path) -> None:
    found = overload.run_small_pod(tmp_path, 3.0, swaps=4)
    # A load that takes too long on a busy machine is refused, and says so: no request may fail.
    assert found["swap_swaps"] + found["swap_refused"] == 4
    assert (found["swap_failed"], found["other_errors"]) == (0, 0)
    assert found.get("oom_kills", 0) == 0


def test_swaps_under_load_fail_no_request_and_give_memory_back(tmp_path: Path) -> None:
    server = serving_models.Serving(tmp_path)
    try:
        found = swaps.swap_small(tmp_path, server, 40, steady_s=1.0)
    finally:
        server.end()
    assert found["failed"] == 0
    assert found["answered"] > 0
    assert found["memory_grew_mib"] < 20


def large_image(folder: Path) -> ServedModel:
    release = serving_models.image(folder / "image.onnx", 1280)
    return ServedModel(model="image", confirmed=release)


def test_a_large_image_fits_as_binary_by_default_and_as_json_with_a_setting(tmp_path: Path) -> None:
    pixels = np.full(3 * 1280 * 1280, 0.12345678, np.float32)
    text = b",".join([b"0.12345678"] * pixels.size)
    head = b'{"inputs":[{"name":"x","shape":[1,3,1280,1280],"datatype":"FP32","data":[%b]}]}'
    answers = []
    for options in ((), ("--body-mib", "64", "--bodies-mib", "128")):
        with serving(tmp_path, *options) as process:
            process.activate(large_image(tmp_path))
            link = HttpLink(process.url)
            path = "/v2/models/image/infer"
            raw = {"Inference-Header-Content-Length": "0"}
            binary = link.request("POST", path, headers=raw, body=pixels.tobytes(), timeout_s=60)
            as_json = link.request("POST", path, body=head % text, timeout_s=60)
            answers.append((binary.status, as_json.status))
            link.close()
    assert answers == [(200, 413), (200, 200)]
    (output,) = decode(as_json.body, dict)["outputs"]
    assert output["shape"] == [1, 10]
