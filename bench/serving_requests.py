"""The requests of the serving benchmarks, and what they are asked of."""

import msgspec
import numpy as np

from edgefleet.protocol.serving import ServedModel, ServedRelease


class Tensor(msgspec.Struct):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[float]


class Asked(msgspec.Struct):
    inputs: tuple[Tensor, ...]


def tiny_body(client: int = 0) -> bytes:
    values = np.random.default_rng(7 + client).random(64).round(4).tolist()
    return msgspec.json.encode(Asked((Tensor("x", (1, 64), "FP32", values),)))


def request(model: str, body: bytes, headers: str = "") -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: bench\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def served(model: str, release: ServedRelease, **more: object) -> ServedModel:
    return ServedModel(model=model, confirmed=release, **more)
