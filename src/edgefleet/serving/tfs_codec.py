"""The requests and replies of TensorFlow Serving's REST API: predict, classify and regress."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import FLOATS, TensorSpec
from edgefleet.serving.active_release import Release
from edgefleet.serving.bf16 import numbers
from edgefleet.serving.bodies import plain_body
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.declared import bad_tensor, batch_of, check_inputs, unknown_input
from edgefleet.serving.inference import Answered, Asked
from edgefleet.serving.oip_codec import generation_line
from edgefleet.serving.refused import Refused
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tfs_values import (
    Value,
    decoded,
    is_bare,
    is_binary,
    listed,
    read_body,
    tensor_of,
    written,
)

Form = str  # the field of the request: instances or inputs
Verb = Literal["classify", "regress"]


class PredictCodec:
    """``:predict``: rows (``instances`` to ``predictions``) or columns (``inputs`` to ``outputs``).

    See ``inference.Codec``. ``bodies`` has room for large bodies that came compressed.
    """

    def __init__(self, bodies: BodyMemory) -> None:
        self._bodies = bodies

    def read(self, request: Request, active: Release) -> Asked[Form]:
        """See ``Codec.read``."""
        body = read_body(plain_body(request, self._bodies))
        if ("instances" in body) is ("inputs" in body):
            raise OperatorError(
                "bad_request", "The body must have either instances or inputs.", field="instances"
            )
        form: Form = "instances" if "instances" in body else "inputs"
        value = body[form]
        if len(active.inputs) == 1 and is_bare(value):
            columns = {active.inputs[0].name: value}
        elif form == "inputs":
            columns = _columns(decoded(value), active.inputs)
        else:
            columns = _columns_of_rows(decoded(value), active.inputs)
        arrays = _arrays(columns, active, tensor_of)
        return Asked(arrays, tuple(active.datatypes), form)

    def reply(self, answered: Answered[Form]) -> Reply:
        """See ``Codec.reply``."""
        asked = answered.asked
        tensors = [(name, numbers(answered.made[name])) for name in asked.outputs]
        if asked.form == "instances":
            items = batch_of(asked.inputs)
            for name, tensor in tensors:
                if tensor.shape[:1] != (items,):
                    raise OperatorError(
                        "bad_request",
                        f"This output has no row for each of the {items} instances.",
                        field=name,
                        hint="Ask in columns: send inputs instead of instances.",
                    )
        lists: dict[str, Any] = {name: listed(name, tensor) for name, tensor in tensors}
        answer: Any = lists
        if len(lists) == 1:
            (answer,) = lists.values()
        elif asked.form == "instances":
            answer = [
                dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)
            ]
        return _reply(
            answered,
            {"predictions" if asked.form == "instances" else "outputs": answer},
            [tensor for _, tensor in tensors],
        )


class ExamplesCodec:
    """``:classify`` and ``:regress``: examples with features, which are the model's inputs.

    See ``inference.Codec``. The form of a reply is the name of the output that it shows.
    """

    def __init__(self, bodies: BodyMemory, verb: Verb) -> None:
        self._bodies = bodies
        self._verb: Verb = verb

    def read(self, request: Request, active: Release) -> Asked[str]:
        """See ``Codec.read``."""
        name = _class_output(active) if self._verb == "classify" else _value_output(active)
        body = read_body(plain_body(request, self._bodies))
        examples = decoded(body.get("examples"))
        context = decoded(body.get("context", {}))
        if not isinstance(examples, list) or not examples:
            raise OperatorError(
                "bad_request", "The examples must be a list of one or more.", field="examples"
            )
        if not isinstance(context, dict):
            raise OperatorError("bad_request", "The context must be an object.", field="context")
        columns: dict[str, Value] = {spec.name: [] for spec in active.inputs}
        for example in examples:
            if not isinstance(example, dict):
                raise OperatorError(
                    "bad_request", "An example must be an object with features.", field="examples"
                )
            for spec in active.inputs:
                value = example.get(spec.name, context.get(spec.name))
                if value is None:
                    check_inputs({}, (spec.name,))
                columns[spec.name].append(value if isinstance(value, list) else [value])
        return Asked(_arrays(columns, active, _feature), (name,), name)

    def reply(self, answered: Answered[str]) -> Reply:
        """See ``Codec.reply``."""
        tensor = numbers(answered.made[answered.asked.form])
        results: list[Any]
        if self._verb == "regress":
            results = tensor.reshape(-1).tolist()
        else:
            rows = tensor.reshape(len(tensor), -1).tolist()
            names = answered.active.classes.get(answered.asked.form, ())
            labels = [*names, *map(str, range(len(names), len(rows[0]) if rows else 0))]
            results = [list(map(list, zip(labels, row, strict=False))) for row in rows]
        return _reply(answered, {"results": results}, (tensor,))


def _reply(answered: Answered[Any], answer: dict[str, object], tensors: Sequence[Tensor]) -> Reply:
    return Reply(200, written(answer, tensors), lines=generation_line(answered.generation))


def _columns(value: Any, specs: Sequence[TensorSpec]) -> dict[str, Value]:
    """The value of each input, by its name, of ``inputs``."""
    if isinstance(value, dict) and not is_binary(value):
        return value
    if len(specs) != 1:
        raise Refused(
            Refusal.MISSING_INPUT,
            f"The model has inputs {sorted(spec.name for spec in specs)}; name each value.",
            field="inputs",
        )
    return {specs[0].name: value}


def _columns_of_rows(rows: Any, specs: Sequence[TensorSpec]) -> dict[str, Value]:
    """The values of each input, by its name, of ``instances``."""
    if not isinstance(rows, list) or not rows:
        raise bad_tensor("instances", "The instances must be a list of one or more.")
    if not isinstance(rows[0], dict) or is_binary(rows[0]):
        return _columns(rows, specs)
    for row in rows:
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            raise bad_tensor("instances", "All instances must name the same inputs.")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _feature(value: Value, spec: TensorSpec) -> Tensor:
    """An array of features, which are flat lists. Raises Refused."""
    flat = TensorSpec(name=spec.name, datatype=spec.datatype, shape=(-1, -1))
    array = tensor_of(value, flat)
    try:
        return array.reshape(len(array), *spec.shape[1:])
    except ValueError as error:
        raise Refused(
            Refusal.SHAPE,
            f"The model needs shape {list(spec.shape)}, not {list(array.shape)}.",
            field=spec.name,
            sent=f"{spec.name} of {array.shape[1]} values",
            wanted=f"{list(spec.shape)}",
        ) from error


def _arrays(
    columns: dict[str, Value], active: Release, read: Callable[[Value, TensorSpec], Tensor]
) -> dict[str, Tensor]:
    """The inputs by name, in the order of the model. Raises Refused."""
    declared = active.declared
    specs = declared.by_name
    for name in columns:
        if name not in specs:
            raise unknown_input(name, specs)
    arrays: dict[str, Tensor] = {}
    for name, spec in specs.items():
        if name in columns:
            array = read(columns[name], spec)
            declared.form(name, spec.datatype, array.shape)
            arrays[name] = array
    check_inputs(arrays, specs)
    return arrays


def _class_output(active: Release) -> str:
    """The output with class scores. Raises OperatorError ``bad_request`` without one."""
    quality = active.wanted.quality
    if quality is not None:
        return quality.output
    found = [one for one in active.outputs if one.datatype in FLOATS and len(one.shape) == 2]
    return _only(found, "classify", "one output of class scores")


def _value_output(active: Release) -> str:
    """The output with one number for each item. Raises OperatorError ``bad_request``."""
    found = [
        one
        for one in active.outputs
        if one.datatype not in ("BYTES", "BOOL") and one.shape and math.prod(one.shape[1:]) == 1
    ]
    return _only(found, "regress", "one output with a single number for each example")


def _only(found: Sequence[TensorSpec], verb: str, wanted: str) -> str:
    if len(found) == 1:
        return found[0].name
    raise OperatorError(
        "bad_request",
        f"{verb} needs a model with {wanted}; this model has {len(found)}.",
        hint="Use :predict.",
    )
