"""Open Inference Protocol v2 over REST: JSON, binary tensors, and the classification extension."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.active_release import Release
from edgefleet.serving.bodies import plain_body
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.classification import check_classes, classified
from edgefleet.serving.inference import Answered, Asked
from edgefleet.serving.limits import JSON_HEAD_BYTES
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.tensors import (
    InferRequest,
    Parameters,
    WantedOutput,
    json_length,
    read_inputs,
    read_raw,
    refuse_shared_memory,
    to_binary,
    to_json,
)

Form = tuple[tuple[bool, int], ...]
"""Of each wanted output, whether it is binary and how many classes of it are wanted (0: values)."""

_NONE: Final[Parameters] = {}


class RestCodec:
    """See ``inference.Codec``. ``bodies`` has room for large bodies that came compressed."""

    def __init__(self, bodies: BodyMemory) -> None:
        self._bodies = bodies

    def read(self, request: Request, active: Release) -> Asked[Form]:
        """See ``Codec.read``."""
        body = plain_body(request, self._bodies)
        json_bytes = _json_length(request, len(body))
        if json_bytes == 0:
            names = tuple(active.datatypes)
            return Asked(read_raw(body, active.inputs), names, ((True, 0),) * len(names))
        parsed = decode(body[:json_bytes], InferRequest)
        max_batch = active.wanted.variant.max_batch
        inputs = read_inputs(parsed, body[json_bytes:], active.inputs, max_batch)
        parameters = parsed.parameters or _NONE
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
            timeout_us(parameters) if parameters else 0,
        )

    def reply(self, answered: Answered[Form]) -> Reply:
        """See ``Codec.reply``."""
        active, asked = answered.active, answered.asked
        pieces: list[bytes | memoryview] = []
        outputs: list[dict[str, Any]] = []
        for name, (binary, classes) in zip(asked.outputs, asked.form, strict=True):
            tensor = answered.made[name]
            datatype: str = active.datatypes[name]
            if classes:
                tensor, datatype = classified(name, tensor, classes), "BYTES"
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": tensor.shape}
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


@lru_cache(maxsize=4)
def generation_line(generation: int) -> bytes:
    """The header line with the number of the set of models."""
    return b"edgefleet-generation: %d\r\n" % generation


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
