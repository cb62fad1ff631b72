"""Walks an ONNX graph, and keeps the values as they are in the TFLite graph.

TFLite has the channels last. An image is transposed where the first operator needs that, and back
where its order matters, so inputs and outputs keep the shapes of the ONNX file.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.conversion.writer import Writer
from edgefleet.optimize.samples import Array

Sizes = tuple[int, ...]

_LAST: Final = (0, 2, 3, 1)
_FIRST: Final = (0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the TFLite graph. ``last``: it is an image with its channels last."""

    tensor: int
    sizes: Sizes
    last: bool = False


class Walk:
    """The values and constants by their names in the ONNX graph, and the graph in the making."""

    def __init__(self, model: Any) -> None:
        import onnx  # noqa: PLC0415 - 31 MiB

        graph = model.graph
        self.writer = Writer()
        self.constants: dict[str, Array] = {
            one.name: np.asarray(onnx.numpy_helper.to_array(one)) for one in graph.initializer
        }
        self.values: dict[str, Value] = {}
        self.inputs: list[int] = []
        self.uses: dict[str, int] = {}
        self.outputs = [one.name for one in graph.output]
        for name in (*(name for node in graph.node for name in node.input), *self.outputs):
            self.uses[name] = self.uses.get(name, 0) + 1
        for one in graph.input:
            if one.name not in self.constants:
                sizes = _sizes(one)
                self.values[one.name] = Value(self.writer.tensor(one.name, sizes), sizes)
                self.inputs.append(self.values[one.name].tensor)
        self.nodes = list(graph.node)

    def value(self, node: Any, place: int = 0) -> Value:
        """An input that is computed. Raises PublisherError if it is a constant or missing."""
        name = node.input[place] if place < len(node.input) else ""
        if name not in self.values:
            raise unsupported(node, f"its input {name!r} is a constant or not there")
        return self.values[name]

    def constant(self, node: Any, place: int) -> Array | None:
        """An input that is a constant. None: it is not there, or it is computed."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name)

    def needed(self, node: Any, place: int) -> Array:
        """An input that must be a constant. Raises PublisherError."""
        if (found := self.constant(node, place)) is None:
            raise unsupported(node, f"its input {place} is no constant")
        return found

    def add(
        self, node: Any, kind: str, taken: list[int], sizes: Sizes, options: str = "",
        *, last: bool = False, name: str = "", **values: object,
    ) -> Value:  # fmt: skip
        """An operator whose output has the name of the node's output, unless it is a ``name``."""
        made = self.writer.tensor(name or node.output[0], sizes)
        self.writer.add(kind, taken, made, options, **values)
        return Value(made, sizes, last)

    def channels_last(self, node: Any, value: Value) -> Value:
        """The image with its channels last."""
        return value if value.last else self._transposed(node, value, _LAST, last=True)

    def channels_first(self, node: Any, value: Value) -> Value:
        """The value as ONNX has it."""
        return self._transposed(node, value, _FIRST, last=False) if value.last else value

    def _transposed(self, node: Any, value: Value, order: Sizes, *, last: bool) -> Value:
        if len(value.sizes) != len(order):
            raise unsupported(node, f"its input has {len(value.sizes)} axes, not 4")
        sizes = tuple(value.sizes[axis] for axis in order)
        name = f"{node.output[0] or node.name}/transposed"
        if not last and value.sizes[1:3] == (1, 1):  # nothing moves
            return self.reshaped(node, value, sizes, name)
        axes = self.writer.constant(f"{name}/axes", np.array(order, np.int32))
        taken = [value.tensor, axes]
        made = self.add(node, "TRANSPOSE", taken, sizes, "TransposeOptions", name=name)
        return replace(made, last=last)

    def reshaped(self, node: Any, value: Value, sizes: Sizes, name: str = "") -> Value:
        """The same numbers in another shape."""
        name = name or node.output[0]
        shape = self.writer.constant(f"{name}/shape", np.array(sizes, np.int32))
        taken = [value.tensor, shape]
        return self.add(
            node, "RESHAPE", taken, sizes, "ReshapeOptions", name=name, newShape=list(sizes)
        )

    def finished(self, node: Any) -> bytes:
        """The bytes of the file. ``node`` is the last one, for the names of transposed outputs."""
        ends = {
            self.channels_first(node, self.values[name]).tensor: name
            for name in self.outputs
            if name in self.values
        }
        if len(ends) < len(self.outputs) or ends.keys() & set(self.inputs):
            raise unsupported(node, "an output is an input, a constant, or another output as well")
        return self.writer.finished(self.inputs, ends)


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node: numbers, lists and text."""
    import onnx  # noqa: PLC0415

    found = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    return {
        name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()
    }


def unsupported(node: Any, why: str) -> PublisherError:
    """The error for a node that has no counterpart."""
    name = node.name or (node.output[0] if node.output else "")
    return PublisherError(
        "model_unsupported",
        f"The ONNX file cannot be converted to TFLite: {node.op_type} {name!r}: {why}.",
        field="model",
        hint="Give a TFLite file of the same model too. docs/optimize-tflite.md has the operators.",
    )


def _sizes(value: Any) -> Sizes:
    """The sizes of an input: the batch may be open."""
    tensor = value.type.tensor_type
    sizes = [one.dim_value if one.HasField("dim_value") else -1 for one in tensor.shape.dim]
    if tensor.elem_type != 1 or not sizes or any(one < 1 for one in sizes[1:]):
        raise PublisherError(
            "model_unsupported",
            f"The ONNX file cannot be converted to TFLite: its input {value.name!r} is not FP32 "
            "with fixed sizes behind the batch.",
            field="model",
            hint="Give a TFLite file of the same model too.",
        )
    return (-1 if sizes[0] < 1 else sizes[0], *sizes[1:])
