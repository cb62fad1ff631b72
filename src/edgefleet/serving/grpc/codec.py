"""The codec of ModelInfer: tensors in and out of the messages of gRPC.

A reply has typed contents if the request had them and the datatypes of all outputs have a typed
form; else it is raw. Source: github.com/kserve/open-inference-protocol and Triton's extensions.
"""

import weakref
from collections.abc import Mapping
from typing import Final, NamedTuple

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.active_release import Release
from edgefleet.serving.grpc.contents import encode_contents, has_typed_form, read_contents
from edgefleet.serving.grpc.infer_message import (
    InferMessage,
    InputHead,
    Parameter,
    Parameters,
    encode_parameter,
    encode_reply,
    output_head,
    raw_output_head,
    reply_head,
    typed_output,
)
from edgefleet.serving.grpc.protobuf import sized
from edgefleet.serving.inference import Answered, Asked
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor
from edgefleet.serving.tensors import from_binary, gather_inputs, to_binary

_SMALL_BYTES: Final = 4096  # an output of this size or less is copied: that costs less
_FINAL_WANTED: Final = "triton_enable_empty_final_response"
_FINAL: Final = sized(4, encode_parameter("triton_final_response", True))


class InferCall(NamedTuple):
    """A request to infer, and the time in microseconds after which nobody waits. 0: no limit."""

    message: InferMessage
    timeout_us: int


class Form(NamedTuple):
    """The form of a reply."""

    typed: bool
    final: bool  # the client asked for a mark on the last answer to its request


class _Plan(NamedTuple):
    """What ``GrpcCodec.read`` found out about a head of raw inputs, for one release."""

    release: "weakref.ref[Release]"
    inputs: tuple[tuple[str, Datatype, tuple[int, ...]], ...]
    outputs: tuple[str, ...]
    form: Form
    timeout_us: int


class GrpcCodec:
    """See ``serving.inference.Codec``.

    A head that a client repeats is checked once for each release.
    """

    def read(self, request: InferCall, active: Release) -> Asked[Form]:
        head, raw = request.message
        plan = head.plan
        if not isinstance(plan, _Plan) or plan.release() is not active:
            return self._read(request, active)
        inputs = {
            name: from_binary(name, data, datatype, shape)
            for (name, datatype, shape), data in zip(plan.inputs, raw, strict=True)
        }
        timeout_us = _shorter(plan.timeout_us, request.timeout_us)
        return Asked(inputs, plan.outputs, plan.form, head.id, timeout_us)

    def _read(self, request: InferCall, active: Release) -> Asked[Form]:
        head = request.message.head
        inputs, typed = _inputs(request.message, active)
        outputs = tuple(active.datatypes)
        if head.outputs:
            outputs = _outputs(head.outputs, active.datatypes)
        given_us = _timeout_us(head.parameters)
        final = head.parameters.get(_FINAL_WANTED) is True
        if not typed:
            names = tuple((one.name, one.shape) for one in head.inputs)
            datatypes = {spec.name: spec.datatype for spec in active.inputs}
            head.plan = _Plan(
                weakref.ref(active),
                tuple((name, datatypes[name], shape) for name, shape in names),
                outputs,
                Form(typed=False, final=final),
                given_us,
            )
        typed = typed and all(has_typed_form(active.datatypes[name]) for name in outputs)
        timeout_us = _shorter(given_us, request.timeout_us)
        return Asked(inputs, outputs, Form(typed, final), head.id, timeout_us)

    def reply(self, answered: Answered[Form]) -> bytes:
        active, asked = answered.active, answered.asked
        outputs: list[bytes] = []
        raw: list[bytes | memoryview] = []
        for name in asked.outputs:
            tensor = answered.made[name]
            datatype = active.datatypes[name]
            if asked.form.typed:
                head = output_head(name, datatype, tensor.shape)
                outputs.append(typed_output(head, encode_contents(tensor, datatype)))
                continue
            outputs.append(raw_output_head(name, datatype, tensor.shape))
            small = tensor.nbytes <= _SMALL_BYTES and tensor.dtype == NUMPY_TYPES[datatype]
            raw.append(tensor.tobytes() if small and datatype != "BYTES" else to_binary(tensor))
        head = reply_head(active.model, active.release)
        if asked.form.final:
            head += _FINAL
        return encode_reply(head, answered.id, outputs, raw)


def _shorter(first_us: int, second_us: int) -> int:
    """The shorter of two times, of which 0 is no limit."""
    return min(first_us, second_us) if first_us and second_us else first_us or second_us


def _inputs(message: InferMessage, active: Release) -> tuple[dict[str, Tensor], bool]:
    """The inputs by name, and whether any has typed contents. Raises Refused."""
    heads, raw = message.head.inputs, message.raw
    typed = any(head.contents is not None for head in heads)
    if typed and raw:
        raise _bad("raw_input_contents", "Raw and typed contents may not be mixed.")
    if not typed and len(raw) != len(heads):
        raise _bad(
            "raw_input_contents",
            f"The request has {len(heads)} inputs and {len(raw)} raw contents.",
        )
    pieces = iter(raw)

    def read(head: InputHead, spec: TensorSpec) -> Tensor:
        for name in head.parameters:
            if name.startswith("shared_memory_"):
                raise _bad(head.name, "Shared memory is not offered; send the tensor itself.")
        if not typed:
            return from_binary(head.name, next(pieces), spec.datatype, head.shape)
        contents = head.contents if head.contents is not None else memoryview(b"")
        return read_contents(head.name, contents, spec.datatype, head.shape)

    return gather_inputs(heads, active.inputs, active.wanted.variant.max_batch, read), typed


def _outputs(
    outputs: list[tuple[str, Parameters]], known: Mapping[str, Datatype]
) -> tuple[str, ...]:
    wanted: dict[str, None] = {}
    for name, parameters in outputs:
        if name not in known or name in wanted:
            raise Refused(
                Refusal.MALFORMED if name in known else Refusal.UNKNOWN_OUTPUT,
                f"The outputs of the model are {sorted(known)}; name each at most once.",
                field=name,
                sent="" if name in known else f"output {shown(name)}",
                wanted=", ".join(map(shown, sorted(known))),
            )
        for one in parameters:
            if one == "classification" or one.startswith("shared_memory_"):
                raise _bad(name, f"The extension {one} is not supported.")
        wanted[name] = None
    return tuple(wanted)


def _timeout_us(parameters: Mapping[str, Parameter]) -> int:
    """The parameter ``timeout``, 0 without one. Raises OperatorError ``bad_request``."""
    for name in ("sequence_id", "priority"):
        if parameters.get(name):
            raise OperatorError(
                "bad_request",
                "Sequences are not offered: a model here keeps no state between requests."
                if name == "sequence_id"
                else "Priorities are not offered: requests are answered in the order they came.",
                field=name,
                hint="Leave the parameter out.",
            )
    given = parameters.get("timeout", 0)
    if type(given) is not int or given < 0:
        raise OperatorError(
            "bad_request", "timeout is a number of microseconds, 0 or more.", field="timeout"
        )
    return given


def _bad(name: str, message: str) -> Refused:
    return Refused(Refusal.MALFORMED, message, field=name)
