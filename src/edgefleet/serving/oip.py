"""The Open Inference Protocol v2 over REST, compatible with KServe, Triton and their clients.

``model_version`` of an answer is the release that computed it, and the header
``edgefleet-generation`` the set of models that it belongs to: a client that asks two models in turn
sees whether one set answered both.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request, retry_headers
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.active_release import Inferred, Release
from edgefleet.serving.limits import JSON_HEAD_BYTES
from edgefleet.serving.metrics import CONTENT_TYPE, metrics_text
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tensors import (
    InferRequest,
    WantedOutput,
    check_outputs,
    json_length,
    read_inputs,
    read_raw,
    to_binary,
    to_json,
)
from edgefleet.serving.worker_release import WorkerEnded

EXTENSIONS: Final = ("binary_tensor_data",)
_PLATFORM: Final = "onnxruntime_onnx"
_NOT_OFFERED: Final = ("classification", "shared_memory_region")


@dataclass(frozen=True, slots=True)
class _Inference:
    """A parsed request: the inputs to run and the form of the answer."""

    began_ns: int
    generation_line: bytes
    id: str | None
    inputs: dict[str, Tensor]
    wanted: tuple[tuple[str, bool], ...]  # name of the output, and whether as binary
    outputs: tuple[str, ...]  # the names of ``wanted``, and the quality output


def render_error(error: EdgefleetError) -> Reply:
    """The protocol's error object, with code, hint and field of edgefleet."""
    body = {"error": error.message, "code": error.code, "hint": error.hint, "field": error.field}
    return Reply(error.status, encode(body), headers=retry_headers(error))


class OpenInference:
    """The handler of the inference listener."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        match request.path.split("/")[1:]:
            case ["v2", "models", model, "infer"]:
                _allow(request, "POST")
                return self._infer(request, model, None)
            case ["v2", "models", model, "versions", version, "infer"]:
                _allow(request, "POST")
                return self._infer(request, model, version)
            case path:
                _allow(request, "GET", "HEAD")
                return self._get(path)

    def _get(self, path: list[str]) -> Reply:
        match path:
            case ["v2"]:
                return _json(
                    {"name": "edgefleet", "version": __version__, "extensions": EXTENSIONS}
                )
            case ["v2", "health", "live"]:
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                self._host.check_ready()
                return _json({"ready": True})
            case ["v2", "models", model] | ["v2", "models", model, "versions", _]:
                return _metadata(self._find(model, path[4] if len(path) > 4 else None))
            case ["v2", "models", model, "ready"] | ["v2", "models", model, "versions", _, "ready"]:
                self._find(model, path[4] if len(path) > 4 else None)
                return _json({"name": model, "ready": True})
            case ["metrics"]:
                return Reply(200, metrics_text(self._host).encode(), CONTENT_TYPE)
            case _:
                raise OperatorError("not_found", f"There is no endpoint /{'/'.join(path)}.")

    def _find(self, model: str, version: str | None) -> Release:
        active = self._host.routes.get(model)
        if active is None:
            raise self._host.not_served(model)
        if version is not None and version != active.release:
            raise Refused(
                Refusal.VERSION,
                f"The active release is {active.release}, not {version}.",
                code="not_found",
                field="version",
                sent=f"version {shown(version)}",
                wanted=f"{shown(active.release)} or none",
            )
        return active

    def _infer(self, request: Request, model: str, version: str | None) -> Reply | Awaitable[Reply]:
        began_ns = time.perf_counter_ns()
        try:
            active = self._find(model, version)
        except Refused as error:
            _count(self._host.routes[model], error)
            raise
        try:
            inference = _read(request, active, began_ns, self._host.generation_line)
            inferred = active.infer(inference.inputs, inference.outputs)
        except EdgefleetError as error:
            _count(active, error)
            raise
        except WorkerEnded:
            return self._infer(request, model, version)
        if isinstance(inferred, tuple):
            return _answer(active, inference, inferred)
        return self._infer_in_turn(active, inference, inferred, (request, model, version))

    async def _infer_in_turn(
        self,
        active: Release,
        inference: _Inference,
        coming: "asyncio.Future[Inferred]",
        asked: tuple[Request, str, str | None],
    ) -> Reply:
        try:
            inferred = await coming
        except EdgefleetError as error:
            _count(active, error)
            raise
        except WorkerEnded:
            again = self._infer(*asked)  # of the release that requests go to now
            return again if isinstance(again, Reply) else await again
        return _answer(active, inference, inferred)


def _count(active: Release, error: EdgefleetError) -> None:
    """Count a request that was not answered: failed in the model, or refused before it."""
    if error.code == "inference_failed":
        active.stats.failed()
    else:
        active.stats.refuse(error, active.release)


def _read(request: Request, active: Release, began_ns: int, generation_line: bytes) -> _Inference:
    encoding = request.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise OperatorError(
            "bad_request", "Compressed bodies are not supported.", field="Content-Encoding"
        )
    body = request.view
    json_bytes = _json_length(request, len(body))
    if json_bytes == 0:
        inputs = read_raw(body, active.inputs)
        wanted = tuple((name, True) for name in active.datatypes)
        request_id = None
    else:
        parsed = decode(
            request.body if json_bytes == len(body) else bytes(body[:json_bytes]), InferRequest
        )
        inputs = read_inputs(
            parsed, body[json_bytes:], active.inputs, active.wanted.variant.max_batch
        )
        binary = parsed.parameters.get("binary_data_output") is True
        wanted = _wanted(parsed.outputs, active.datatypes, binary=binary)
        request_id = parsed.id
    names = tuple(name for name, _ in wanted)
    quality = active.wanted.quality.output
    outputs = names if quality in names else (*names, quality)
    return _Inference(began_ns, generation_line, request_id, inputs, wanted, outputs)


def _json_length(request: Request, size_bytes: int) -> int:
    """The size of the JSON, in bytes: as the header says, or the whole body without it."""
    length = json_length(request.headers)
    if length is None:
        return max(size_bytes, 1)
    if not 0 <= length <= min(size_bytes, JSON_HEAD_BYTES):
        raise OperatorError(
            "bad_request",
            f"The JSON length must be a number from 0 to {min(size_bytes, JSON_HEAD_BYTES)}.",
            field="Inference-Header-Content-Length",
        )
    return length


def _wanted(
    outputs: tuple[WantedOutput, ...], known: Mapping[str, Datatype], *, binary: bool
) -> tuple[tuple[str, bool], ...]:
    if not outputs:
        return tuple((name, binary) for name in known)
    wanted: dict[str, bool] = {}
    for output in outputs:
        if output.name not in known or output.name in wanted:
            raise Refused(
                Refusal.MALFORMED if output.name in known else Refusal.UNKNOWN_OUTPUT,
                f"The outputs of the model are {sorted(known)}; name each at most once.",
                field=output.name,
                sent="" if output.name in known else f"output {shown(output.name)}",
                wanted=", ".join(map(shown, sorted(known))),
            )
        for name in _NOT_OFFERED:
            if name in output.parameters:
                raise OperatorError(
                    "bad_request", f"The extension {name} is not supported.", field=output.name
                )
        wanted[output.name] = output.parameters.get("binary_data", binary) is True
    return tuple(wanted.items())


def _answer(active: Release, inference: _Inference, inferred: Inferred) -> Reply:
    """Encode the outputs and count the request as served, or as an error of the release.

    The way to a worker and back is no part of the latency, so that releases in trial and confirmed
    releases compare.
    """
    tensors, lost_ns = inferred
    made = dict(zip(inference.outputs, tensors, strict=True))
    try:
        outputs, pieces = _encoded(active, inference, made)
    except EdgefleetError as error:
        _count(active, error)
        raise
    answer: dict[str, Any] = {"model_name": active.model, "model_version": active.release}
    if inference.id is not None:
        answer["id"] = inference.id
    answer["outputs"] = outputs
    head = encode(answer)
    quality = active.wanted.quality
    active.stats.succeeded(
        (time.perf_counter_ns() - inference.began_ns - lost_ns) // 1_000,
        made[quality.output],
        quality.scores,
        inference.inputs.get(active.inputs[0].name) if active.inputs else None,
    )
    if not pieces:
        return Reply(200, head, lines=inference.generation_line)
    return Reply(
        200,
        b"".join((head, *pieces)),
        "application/octet-stream",
        (("Inference-Header-Content-Length", str(len(head))),),
        inference.generation_line,
    )


def _encoded(
    active: Release, inference: _Inference, made: Mapping[str, Tensor]
) -> tuple[list[dict[str, Any]], list[bytes | memoryview]]:
    """The outputs of the answer and their binary tensors.

    Raises DeviceError ``inference_failed`` for an output that is not as the manifest says or that
    has no answer in it, and Refused for one that the client cannot get in this form.
    """
    outputs: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    check_outputs(active.outputs, made)
    for name, binary in inference.wanted:
        tensor = made[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": active.datatypes[name],
            "shape": tensor.shape,
        }
        if binary:
            pieces.append(to_binary(tensor))
            output["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            output["data"] = to_json(name, tensor)
        outputs.append(output)
    return outputs, pieces


def _metadata(active: Release) -> Reply:
    return _json(
        {
            "name": active.model,
            "versions": [active.release],
            "platform": _PLATFORM,
            "inputs": active.inputs,
            "outputs": active.outputs,
        }
    )


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise OperatorError(
            "method_not_allowed",
            f"This endpoint accepts {' and '.join(methods)}, not {request.method}.",
        )


def _json(value: object) -> Reply:
    return Reply(200, encode(value))
