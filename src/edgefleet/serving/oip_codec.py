"""Open Inference Protocol v2 over REST: JSON, binary tensors, and the classification extension."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import astuple

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.wire import encode
from edgefleet.serving.active_release import Release
from edgefleet.serving.binary_tensors import to_binary
from edgefleet.serving.bodies import ENCODING, plain_body
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.classification import check_classes, classified
from edgefleet.serving.inference import Answered, Asked
from edgefleet.serving.limits import (
    JSON_HEAD_BYTES,
    LONG_COMPRESSED_BYTES,
    LONG_JSON_BYTES,
    LONG_JSON_ELEMENTS,
)
from edgefleet.serving.long_json import Aside, encoded
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.tensors import (
    JSON_LENGTH,
    NOTHING_READ,
    InferReply,
    OutputTensor,
    Parameters,
    Parsed,
    WantedOutput,
    check_finite,
    json_length,
    parse_any,
    parse_request,
    read_inputs,
    read_long,
    read_raw,
    refuse_shared_memory,
    to_json,
)

Form = tuple[tuple[bool, int], ...]
"""Of each wanted output, whether it is binary and how many classes of it are wanted (0: values)."""

Data = bytes | bytearray | memoryview

_NONE: Final[Parameters] = {}
_NOTHING: Final = memoryview(b"")
_VALUES: Final[Form] = ((False, 0),)


class RestCodec:
    """See ``inference.Codec``. ``bodies`` has room for large bodies that came compressed."""

    def __init__(self, bodies: BodyMemory) -> None:
        self._bodies = bodies
        self._aside = Aside()

    async def read_aside(self, request: Request) -> Request:
        """The request whose long JSON was read in a thread. An error of it is that of ``read``."""
        return await self._aside.run(lambda: self._read_long(request))

    def _read_long(self, request: Request) -> Request:
        try:
            json, binary = self._parts(request)
            if json is None:
                return _Read(*astuple(request), binary=binary)
            parsed = parse_any(json)
            found = read_long(parsed)
        except EdgefleetError as error:
            return _Read(*astuple(request), error=error)
        return _Read(*astuple(request), binary=binary, parsed=parsed, found=found)

    def read(self, request: Request, active: Release) -> Asked[Form]:
        """See ``Codec.read``."""
        found: Mapping[str, Tensor | Refused] = NOTHING_READ
        if isinstance(request, _Read):
            if request.error is not None:
                raise request.error
            parsed, binary, found = request.parsed, request.binary, request.found
        else:
            json, binary = self._parts(request)
            parsed = None if json is None else parse_request(json, active.declared)
        if parsed is None:
            names = tuple(active.datatypes)
            return Asked(read_raw(binary, active.inputs), names, ((True, 0),) * len(names))
        inputs = read_inputs(parsed, binary, active.declared, found)
        parameters = parsed.parameters
        if not (parameters or parsed.outputs):  # almost every request
            names = tuple(active.datatypes)
            return Asked(inputs, names, _VALUES * len(names), parsed.id or "")
        parameters = parameters or _NONE
        wanted = _wanted(
            parsed.outputs or (),
            active.datatypes,
            binary=parameters.get("binary_data_output") is True,
        )
        return Asked(
            inputs,
            tuple(wanted),
            tuple(wanted.values()),
            parsed.id or "",
            timeout_us(parameters),
        )

    def _parts(self, request: Request) -> tuple[Data | None, memoryview]:
        """The JSON of a request and the binary tensors behind it. None: the body is one tensor."""
        headers = request.headers
        if JSON_LENGTH not in headers and ENCODING not in headers:  # almost every request
            return request.raw_body, _NOTHING
        body = plain_body(request, self._bodies)
        length = json_length(headers)
        if length is None:
            return body, _NOTHING
        most_bytes = min(len(body), JSON_HEAD_BYTES)
        if not 0 <= length <= most_bytes:
            raise OperatorError(
                "bad_request",
                f"The JSON length must be a number from 0 to {most_bytes}.",
                field="Inference-Header-Content-Length",
            )
        view = memoryview(body)
        return view[:length] if length else None, view[length:]

    def reply(self, answered: Answered[Form]) -> Reply:
        """See ``Codec.reply``."""
        active, asked = answered.active, answered.asked
        pieces: list[bytes | memoryview] = []
        outputs: list[OutputTensor] = []
        values = 0  # to be written as JSON
        for name, (binary, classes) in zip(asked.outputs, asked.form, strict=True):
            tensor = answered.made[name]
            datatype: str = active.datatypes[name]
            if classes:
                names = active.classes.get(name, ())
                tensor, datatype = classified(name, tensor, classes, names), "BYTES"
            if binary:
                piece = to_binary(tensor)
                pieces.append(piece)
                size = {"binary_data_size": len(piece)}
                outputs.append(OutputTensor(name, datatype, tensor.shape, parameters=size))
                continue
            values += tensor.size
            if values >= LONG_JSON_ELEMENTS and not any(binary for binary, _ in asked.form):
                return self._long_reply(answered)
            outputs.append(OutputTensor(name, datatype, tensor.shape, to_json(name, tensor)))
        head = encode(InferReply(active.model, active.release, answered.id, outputs))
        lines = generation_line(answered.generation)
        if not pieces:
            return Reply(200, head, lines=lines)
        lines += b"Inference-Header-Content-Length: %d\r\n" % len(head)
        return Reply(200, b"".join((head, *pieces)), "application/octet-stream", lines=lines)

    def _long_reply(self, answered: Answered[Form]) -> Reply:
        """A reply without binary tensors, encoded in a thread. Its faults are found here."""
        active, asked = answered.active, answered.asked
        outputs: list[tuple[dict[str, Any], Tensor]] = []
        for name, (_, classes) in zip(asked.outputs, asked.form, strict=True):
            tensor = answered.made[name]
            datatype: str = active.datatypes[name]
            if classes:
                names = active.classes.get(name, ())
                tensor, datatype = classified(name, tensor, classes, names), "BYTES"
            else:
                check_finite(name, tensor)
                tensor = tensor.copy()  # the next request may overwrite it
            outputs.append(({"name": name, "datatype": datatype, "shape": tensor.shape}, tensor))
        head = {"model_name": active.model, "model_version": active.release, "id": answered.id}
        line = generation_line(answered.generation)
        return Reply(200, lines=line, make=lambda: self._aside.run(lambda: encoded(head, outputs)))


class _Read(Request, kw_only=True, eq=False):
    """A request whose JSON was read before its release was found. ``error``: it cannot be read."""

    binary: memoryview = _NOTHING
    parsed: Parsed | None = None
    found: Mapping[str, Tensor | Refused] = NOTHING_READ
    error: EdgefleetError | None = None


def has_long_json(request: Request) -> bool:
    """Whether the JSON of a request is so long that it is read in a thread."""
    size_bytes = len(request.raw_body)
    if size_bytes >= LONG_COMPRESSED_BYTES and b"content-encoding" in request.headers:
        return True
    if size_bytes < LONG_JSON_BYTES:
        return False
    length = json_length(request.headers)
    return length is None or length >= LONG_JSON_BYTES


@lru_cache(maxsize=4)
def generation_line(generation: int) -> bytes:
    """The header line with the number of the set of models."""
    return b"edgefleet-generation: %d\r\n" % generation


def _wanted(
    outputs: tuple[WantedOutput, ...], known: Mapping[str, Datatype], *, binary: bool
) -> dict[str, tuple[bool, int]]:
    """The form of each wanted output, by its name."""
    if not outputs:
        return dict.fromkeys(known, (binary, 0))
    wanted: dict[str, tuple[bool, int]] = {}
    for output in outputs:
        name = output.name
        if name not in known or name in wanted:
            raise Refused(
                Refusal.MALFORMED if name in known else Refusal.UNKNOWN_OUTPUT,
                f"The outputs of the model are {sorted(known)}; name each at most once.",
                field=name,
                sent="" if name in known else f"output {shown(name)}",
                wanted=", ".join(map(shown, sorted(known))),
            )
        parameters = output.parameters or _NONE
        refuse_shared_memory(name, parameters)
        classes = parameters.get("classification")
        wanted[name] = (
            parameters.get("binary_data", binary) is True,
            0 if classes is None else check_classes(name, classes, known[name]),
        )
    return wanted
