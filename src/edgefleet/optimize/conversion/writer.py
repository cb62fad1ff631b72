"""Writes a TFLite graph with the schema that the package of LiteRT has."""

from typing import Any, Final

import numpy as np

from edgefleet.optimize.samples import Array
from edgefleet.optimize.tflite_steps.graph import packed, schema, tensor_text

_VERSION: Final = 3
_TYPES: Final = {"float32": 0, "int32": 2}  # of the schema


class Writer:
    """A graph in the making. Tensors are numbers; -1 is the size of an open batch."""

    def __init__(self) -> None:
        self._schema = schema()
        self._model = self._schema.ModelT()
        self._model.version, self._model.description = _VERSION, "edgefleet"
        self._model.buffers, self._model.operatorCodes = [self._schema.BufferT()], []
        self._graph = self._schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._names: set[str] = set()

    def tensor(self, name: str, sizes: tuple[int, ...]) -> int:
        """A new tensor of floats."""
        made = self._schema.TensorT()
        made.name, made.buffer = self._free(name), 0
        made.shape = [1 if one == -1 else one for one in sizes]
        if -1 in sizes:
            made.shapeSignature = list(sizes)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, array: Array) -> int:
        """A new constant, of floats or of 32-bit integers."""
        buffer, made = self._schema.BufferT(), self._schema.TensorT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        made.name, made.shape = self._free(name), list(array.shape)
        made.buffer, made.type = len(self._model.buffers) - 1, _TYPES[str(array.dtype)]
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def add(
        self,
        kind: str,
        taken: list[int],
        made: int,
        options: str = "",
        **values: object,
    ) -> None:
        """An operator of the schema, such as ``CONV_2D`` with ``Conv2DOptions``."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(self._schema.BuiltinOperator, kind))
        operator.inputs, operator.outputs = taken, [made]
        if options:
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self._schema, f"{options}T")()
            for name, value in values.items():
                setattr(operator.builtinOptions, name, value)
        self._graph.operators.append(operator)

    def fuse(self, tensor: int, activation: str) -> bool:
        """Let the operator that makes the tensor apply an activation. False: it cannot."""
        for operator in self._graph.operators:
            options = operator.builtinOptions
            if operator.outputs == [tensor] and not getattr(options, "fusedActivationFunction", 1):
                function: Any = getattr(self._schema.ActivationFunctionType, activation)
                options.fusedActivationFunction = function
                return True
        return False

    def finished(self, inputs: list[int], outputs: dict[int, str]) -> bytes:
        """The bytes of the file. ``outputs`` get the names."""
        for tensor, name in outputs.items():
            for other in self._graph.tensors:
                if tensor_text(other.name) == name:
                    other.name = f"{name}_inside"
            self._graph.tensors[tensor].name = name
        self._graph.inputs, self._graph.outputs = inputs, list(outputs)
        self._model.subgraphs = [self._graph]
        return packed(self._model)

    def _code(self, number: int) -> int:
        for place, one in enumerate(self._model.operatorCodes):
            if one.builtinCode == number:
                return place
        made = self._schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = number, min(number, 127), 1
        self._model.operatorCodes.append(made)
        return len(self._model.operatorCodes) - 1

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found
