"""The Open Inference Protocol v2 over REST, compatible with KServe, Triton and their clients.

``model_version`` of an answer is the release that computed it, and the header
``edgefleet-generation`` the set of models that it belongs to: a client that asks two models in turn
sees whether one set answered both. The id of an answer is that of the request, or one that the
server makes: ``POST /v2/models/MODEL/truth`` labels the answer by it.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Any, Final

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request, retry_headers
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.labels import Truth
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.active_release import Release
from edgefleet.serving.inference import Answered, Asked, Inferences
from edgefleet.serving.limits import JSON_HEAD_BYTES
from edgefleet.serving.metrics import CONTENT_TYPE, metrics_text
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.tensors import (
    InferRequest,
    WantedOutput,
    json_length,
    read_inputs,
    read_raw,
    to_binary,
    to_json,
)

EXTENSIONS: Final = ("binary_tensor_data",)
_PLATFORM: Final = "onnxruntime_onnx"
_NOT_OFFERED: Final = ("classification", "shared_memory_region")


def render_error(error: EdgefleetError) -> Reply:
    """The protocol's error object, with code, hint and field of edgefleet."""
    body = {"error": error.message, "code": error.code, "hint": error.hint, "field": error.field}
    return Reply(error.status, encode(body), headers=retry_headers(error))


@lru_cache(maxsize=4)
def generation_line(generation: int) -> bytes:
    """The header line with the number of the set of models."""
    return b"edgefleet-generation: %d\r\n" % generation


class OpenInference:
    """The handler of the inference listener."""

    def __init__(self, host: ModelHost, inferences: Inferences | None = None) -> None:
        self._host = host
        self._inferences = inferences or Inferences(host)

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        match request.path.split("/")[1:]:
            case ["v2", "models", model, "infer"]:
                _allow(request, "POST")
                return self._inferences.infer(_CODEC, request, model)
            case ["v2", "models", model, "versions", version, "infer"]:
                _allow(request, "POST")
                return self._inferences.infer(_CODEC, request, model, version)
            case ["v2", "models", model, "truth"]:
                _allow(request, "POST")
                return self._truth(request, model)
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
                return _metadata(self._inferences.find(model, path[4] if len(path) > 4 else None))
            case ["v2", "models", model, "ready"] | ["v2", "models", model, "versions", _, "ready"]:
                self._inferences.find(model, path[4] if len(path) > 4 else None)
                return _json({"name": model, "ready": True})
            case ["metrics"]:
                return Reply(200, metrics_text(self._host).encode(), CONTENT_TYPE)
            case _:
                raise OperatorError("not_found", f"There is no endpoint /{'/'.join(path)}.")

    def _truth(self, request: Request, model: str) -> Reply:
        """Compare labels of a local program with the answers, as ``/control/truth`` does."""
        self._inferences.find(model)
        truth = decode(request.body, Truth)
        for place, label in enumerate(truth.labels):
            if label.fault:
                raise OperatorError("bad_request", label.fault, field=f"labels[{place}]")
        return _json(self._host.answers.label(model, truth.labels))


class RestCodec:
    """Open Inference Protocol v2 as JSON, with the binary tensor extension.

    The form of a reply says of each output whether it is binary.
    """

    def read(self, request: Request, active: Release) -> Asked[tuple[bool, ...]]:
        """See ``Codec.read``."""
        return _read(request, active)

    def reply(self, answered: Answered[tuple[bool, ...]]) -> Reply:
        """See ``Codec.reply``."""
        return _reply(answered)


_CODEC: Final = RestCodec()


def _read(request: Request, active: Release) -> Asked[tuple[bool, ...]]:
    encoding = request.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise OperatorError(
            "bad_request", "Compressed bodies are not supported.", field="Content-Encoding"
        )
    body = request.view
    json_bytes = _json_length(request, len(body))
    if json_bytes == 0:
        names = tuple(active.datatypes)
        return Asked(read_raw(body, active.inputs), names, (True,) * len(names))
    parsed = decode(
        request.body if json_bytes == len(body) else bytes(body[:json_bytes]), InferRequest
    )
    inputs = read_inputs(parsed, body[json_bytes:], active.inputs, active.wanted.variant.max_batch)
    binary = parsed.parameters.get("binary_data_output") is True
    wanted = _wanted(parsed.outputs, active.datatypes, binary=binary)
    return Asked(inputs, tuple(wanted), tuple(wanted.values()), parsed.id or "")


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
) -> dict[str, bool]:
    """Whether each wanted output is binary, by its name."""
    if not outputs:
        return dict.fromkeys(known, binary)
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
    return wanted


def _reply(answered: Answered[tuple[bool, ...]]) -> Reply:
    active, asked = answered.active, answered.asked
    pieces: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    for name, binary in zip(asked.outputs, asked.form, strict=True):
        tensor = answered.made[name]
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
    head = encode(
        {
            "model_name": active.model,
            "model_version": active.release,
            "id": answered.id,
            "outputs": outputs,
        }
    )
    line = generation_line(answered.generation)
    if not pieces:
        return Reply(200, head, lines=line)
    return Reply(
        200,
        b"".join((head, *pieces)),
        "application/octet-stream",
        (("Inference-Header-Content-Length", str(len(head))),),
        line,
    )


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
