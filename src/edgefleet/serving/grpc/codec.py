"""The codec of ModelInfer: tensors in and out of the messages of gRPC.

A reply has typed contents if the request had them and the datatypes of all outputs have a typed
form; else it is raw. Source: github.com/kserve/open-inference-protocol and Triton's extensions.
"""

import weakref
from collections.abc import Mapping
from typing import Final, NamedTuple

from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype
from edgefleet.serving.active_release import Release
from edgefleet.serving.binary_tensors import from_binary, to_binary
from edgefleet.serving.classification import check_classes, classified
from edgefleet.serving.declared import bad_tensor, check_inputs
from edgefleet.serving.grpc.call import Asked as Call
from edgefleet.serving.grpc.contents import encode_contents, has_typed_form, read_contents
from edgefleet.serving.grpc.infer_message import (
    InferMessage,
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
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.tensors import refuse_shared_memory

FINAL_WANTED: Final = "triton_enable_empty_final_response"
FINAL: Final = sized(4, encode_parameter("triton_final_response", True))


class InferCall(NamedTuple):
    """A request to infer, and how long its client waits, in microseconds. 0: without a limit.

    ``call`` is the call in which it came.
    """

    message: InferMessage
    timeout_us: int
    call: Call


class Form(NamedTuple):
    """The form of a reply."""

    typed: bool
    final: bool  # the client asked for a mark on the last answer to its request
    classes: tuple[int, ...]  # the number of classes of each output, 0 for its values; or empty


class _Plan(NamedTuple):
    """The result of ``GrpcCodec.read`` for a head of raw inputs, for one release."""

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
        allowed_us = shorter(plan.timeout_us, request.timeout_us)
        return Asked(inputs, plan.outputs, plan.form, head.id, allowed_us)

    def _read(self, request: InferCall, active: Release) -> Asked[Form]:
        head = request.message.head
        inputs, typed = _inputs(request.message, active)
        outputs, classes = _outputs(head.outputs, active.datatypes)
        given_us = timeout_us(head.parameters) if head.parameters else 0
        form = Form(
            typed=typed and all(has_typed_form(active.datatypes[name]) for name in outputs),
            final=head.parameters.get(FINAL_WANTED) is True,
            classes=classes,
        )
        if not typed:
            datatypes: dict[str, Datatype] = {spec.name: spec.datatype for spec in active.inputs}
            read: tuple[tuple[str, Datatype, tuple[int, ...]], ...] = tuple(
                (one.name, datatypes[one.name], one.shape) for one in head.inputs
            )
            head.plan = _Plan(weakref.ref(active), read, outputs, form, given_us)
        return Asked(inputs, outputs, form, head.id, shorter(given_us, request.timeout_us))

    def reply(self, answered: Answered[Form]) -> bytes:
        active, asked = answered.active, answered.asked
        form = asked.form
        outputs: list[bytes] = []
        raw: list[bytes | memoryview] = []
        for place, name in enumerate(asked.outputs):
            tensor = answered.made[name]
            datatype = active.datatypes[name]
            if form.classes and form.classes[place]:
                names = active.classes.get(name, ())
                tensor, datatype = classified(name, tensor, form.classes[place], names), "BYTES"
            if form.typed:
                head = output_head(name, datatype, tensor.shape)
                outputs.append(typed_output(head, encode_contents(tensor, datatype)))
                continue
            outputs.append(raw_output_head(name, datatype, tensor.shape))
            raw.append(to_binary(tensor))
        head = reply_head(active.model, active.release)
        if form.final:
            head += FINAL
        return encode_reply(head, answered.id, outputs, raw)


def shorter(first_us: int, second_us: int) -> int:
    """The shorter of two times, of which 0 is no limit."""
    return min(first_us, second_us) if first_us and second_us else first_us or second_us


def _inputs(message: InferMessage, active: Release) -> tuple[dict[str, Tensor], bool]:
    """The inputs by name, and whether any has typed contents. Raises Refused."""
    heads, raw = message.head.inputs, message.raw
    typed = any(head.contents is not None for head in heads)
    if typed and raw:
        raise bad_tensor("raw_input_contents", "Raw and typed contents may not be mixed.")
    if not typed and len(raw) != len(heads):
        raise bad_tensor(
            "raw_input_contents",
            f"The request has {len(heads)} inputs and {len(raw)} raw contents.",
        )
    pieces = iter(raw)
    arrays: dict[str, Tensor] = {}
    for head in heads:
        datatype = active.declared.form(head.name, head.datatype, head.shape).spec.datatype
        if head.name in arrays:
            raise bad_tensor(head.name, "This input is given twice.")
        if head.parameters:
            refuse_shared_memory(head.name, dict(head.parameters))
        if not typed:
            arrays[head.name] = from_binary(head.name, next(pieces), datatype, head.shape)
            continue
        contents = head.contents if head.contents is not None else memoryview(b"")
        arrays[head.name] = read_contents(head.name, contents, datatype, head.shape)
    check_inputs(arrays, active.declared.by_name)
    return arrays, typed


def _outputs(
    outputs: list[tuple[str, Parameters]], known: Mapping[str, Datatype]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The wanted outputs, and how many classes of each are wanted; empty if of none."""
    if not outputs:
        return tuple(known), ()
    wanted: dict[str, int] = {}
    for name, parameters in outputs:
        if name not in known or name in wanted:
            raise Refused(
                Refusal.MALFORMED if name in known else Refusal.UNKNOWN_OUTPUT,
                f"The outputs of the model are {sorted(known)}; name each at most once.",
                field=name,
                sent="" if name in known else f"output {shown(name)}",
                wanted=", ".join(map(shown, sorted(known))),
            )
        refuse_shared_memory(name, dict(parameters))
        classes = parameters.get("classification")
        wanted[name] = 0 if classes is None else check_classes(name, classes, known[name])
    return tuple(wanted), tuple(wanted.values()) if any(wanted.values()) else ()
