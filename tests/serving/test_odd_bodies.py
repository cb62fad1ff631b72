"""Odd and damaged bodies: every one gets a typed answer, and the next request is answered."""

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Request
from edgefleet.protocol.serving import Apply
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest
from edgefleet.serving.routes import render_error
from support.rest_answer import answered
from support.tiny_models import classifier

TENSOR = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
BINARY = {k: v for k, v in TENSOR.items() if k != "data"} | {
    "parameters": {"binary_data_size": 256}
}
V2, PREDICT, CLASSIFY = "/v2/models/m/infer", "/v1/models/m:predict", "/v1/models/m:classify"
HEAD = json.dumps({"inputs": [BINARY]}).encode()
SEEDS: list[tuple[str, dict[bytes, bytes], bytes]] = [
    (V2, {}, json.dumps({"id": "a", "inputs": [TENSOR], "outputs": None}).encode()),
    (
        V2,
        {},
        json.dumps(
            {
                "inputs": [TENSOR],
                "parameters": {"timeout": 9, "priority": 0},
                "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
            }
        ).encode(),
    ),
    (V2, {b"inference-header-content-length": b"%d" % len(HEAD)}, HEAD + bytes(256)),
    (V2, {b"inference-header-content-length": b"0"}, bytes(256)),
    (PREDICT, {}, json.dumps({"instances": [[0.5] * 64], "signature_name": None}).encode()),
    (PREDICT, {}, json.dumps({"instances": [{"pixels": [float("nan")] * 64}]}).encode()),
    (PREDICT, {}, json.dumps({"inputs": {"pixels": [[0.5] * 64] * 2}}).encode()),
    (CLASSIFY, {}, json.dumps({"examples": [{"pixels": [0.5] * 64}], "context": {}}).encode()),
]
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e400, 2**70, "", "x", "\ud800", [], {}, [[]], {"b64": ""}, [None],
    {"name": "pixels"}, float("nan"),
)  # fmt: skip
PIECES = (b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"NaN", b"1e999", b"\xff", b"\\u0000")


def replaced(random_: random.Random, value: Any) -> Any:
    """``value`` with one part of it replaced, removed or doubled."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(list(value))
        changed = dict(value)
        if random_.random() < 0.15:
            del changed[key]
        else:
            changed[key] = replaced(random_, value[key])
        return changed
    if isinstance(value, list) and value and random_.random() < 0.85:
        at = random_.randrange(len(value))
        if random_.random() < 0.15:
            return [*value, value[at]]
        return [*value[:at], replaced(random_, value[at]), *value[at + 1 :]]
    return random_.choice(ODD)


def damaged(random_: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, cut or added."""
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(data) + 1)
        data = random_.choice(
            (
                data[:at],
                data[:at] + random_.choice(PIECES) + data[at:],
                data[:at] + random_.randbytes(1) + data[at + 1 :],
                data[:at] + data[at + random_.randint(1, 40) :],
            )
        )
    return data


def odd_request(seed: int) -> Request:
    random_ = random.Random(seed)
    path, headers, data = random_.choice(SEEDS)
    headers = dict(headers)
    if not headers and random_.random() < 0.6:
        value = json.loads(data)
        for _ in range(random_.randint(1, 2)):
            value = replaced(random_, value)
        data = json.dumps(value).encode("utf-8", "surrogatepass")
    else:
        data = damaged(random_, data)
    if random_.random() < 0.2:
        coding, pack = random_.choice(((b"gzip", gzip.compress), (b"deflate", zlib.compress)))
        headers[b"content-encoding"] = coding
        data = pack(data)
        if random_.random() < 0.5:
            data = damaged(random_, data)
    if random_.random() < 0.1:
        headers[b"inference-header-content-length"] = random_.choice((b"-1", b"9" * 30, b"1", b""))
    if random_.random() < 0.3:
        headers[b"accept-encoding"] = b"gzip"
    return Request("POST", path, "", headers, data)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Rest:
    import asyncio  # noqa: PLC0415 - for one call

    model = classifier(Path(tmp_path_factory.mktemp("model")) / "m.onnx")
    host = ModelHost()
    asyncio.run(host.apply(Apply(generation=1, models=(model.activate("1", "m"),))))
    return Rest(host)


def check(rest: Rest, seeds: range) -> None:
    statuses: dict[int, int] = {}
    for seed in seeds:
        try:
            reply = answered(rest, odd_request(seed))
        except EdgefleetError as error:
            reply = render_error(error)
        assert reply.status in (200, 400, 413, 500), (seed, reply)
        if reply.status != 200:
            body = reply.body if reply.body[:1] == b"{" else gzip.decompress(reply.body)
            assert json.loads(body)["error"], seed
            assert reply.status != 500 or b"not finite" in body, (seed, body)
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if seed % 50 == 0:
            path, headers, data = SEEDS[0]
            fine = answered(rest, Request("POST", path, "", headers, data))
            assert fine.status == 200
    assert statuses[200] > len(seeds) // 50  # some changes do no harm: the others are not all noise
    assert statuses[400] > len(seeds) // 3


def test_every_odd_body_gets_a_typed_answer(rest: Rest) -> None:
    check(rest, range(300))


@pytest.mark.long
def test_every_odd_body_of_many_gets_a_typed_answer(rest: Rest) -> None:
    check(rest, range(300, 8_300))
