"""LiteRT (TFLite models), on the CPU with XNNPACK or on an Edge TPU with its delegate.

An input or output that the manifest names FP32 and the file has as a quantised integer is converted
with the scale and zero point of the file, as the QUANTIZE and DEQUANTIZE operators of the runtime
do. One that the manifest names as the file has it passes unchanged.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec, Variant
from edgefleet.serving.checked_file import CheckedFile
from edgefleet.serving.cpu_use import foreign_threads
from edgefleet.serving.runtime import (
    NUMPY_TYPES,
    LoadedModel,
    PlainModel,
    QuantisedTensor,
    Tensor,
    check_inputs,
    check_spec,
    run_failed,
    short,
)

_EDGETPU_LIBRARY: Final = "libedgetpu.so.1"
_NAMES: Final[Mapping[np.dtype[Any], Datatype]] = {
    dtype: name for name, dtype in NUMPY_TYPES.items() if name != "BYTES"
}
_INTEGERS: Final = frozenset({"INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64"})


class LiteRtRuntime:
    """LiteRT on the CPU."""

    def start(self) -> None:
        self._litert()

    def versions(self) -> Mapping[str, str]:
        self._litert()
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - rarely used

        try:
            return {"ai-edge-litert": version("ai-edge-litert")}
        except PackageNotFoundError:  # built for this board
            return {"ai-edge-litert": ""}

    def load(self, file: CheckedFile, variant: Variant, *, threads: int) -> LoadedModel:
        litert = self._litert()
        delegates = self._delegates(litert)
        earlier = foreign_threads()
        try:
            # The interpreter maps its file as long as it lives, so it gets the sealed copy.
            interpreter = litert.Interpreter(
                model_path=file.sealed_path(),
                num_threads=threads,
                experimental_delegates=delegates,
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = short(error)
            damaged = "flatbuffer" in text.lower() or "could not open" in text.lower()
            code = "not_a_model" if damaged else "model_unsupported"
            raise PublisherError(code, f"The runtime refuses the model: {text}") from error
        return _LiteRtModel(
            interpreter,
            _ports("inputs", interpreter.get_input_details(), variant.inputs),
            _ports("outputs", interpreter.get_output_details(), variant.outputs),
            sorted(foreign_threads() - earlier),
        )

    def _delegates(self, litert: Any) -> list[Any]:
        del litert
        return []

    @staticmethod
    def _litert() -> Any:
        try:
            from ai_edge_litert import interpreter  # noqa: PLC0415 - 0.3 s, for such models only
        except ImportError as error:
            raise DeviceError(
                "runtime_missing",
                "ai-edge-litert is not installed.",
                hint="Run: pip install 'edgefleet[litert]'",
            ) from error
        return interpreter


class EdgeTpuRuntime(LiteRtRuntime):
    """LiteRT with the delegate of the Edge TPU. Other operators of a model run on the CPU."""

    def versions(self) -> Mapping[str, str]:
        self._delegates(self._litert())
        return {**super().versions(), "libedgetpu": _EDGETPU_LIBRARY.rpartition(".")[2]}

    def _delegates(self, litert: Any) -> list[Any]:
        try:
            ctypes.CDLL(_EDGETPU_LIBRARY)
            return [litert.load_delegate(_EDGETPU_LIBRARY)]
        except (OSError, ValueError) as error:
            missing = isinstance(error, OSError)
            raise DeviceError(
                "runtime_missing",
                f"The Edge TPU cannot be used: {_EDGETPU_LIBRARY} "
                + ("is not installed." if missing else f"finds no device. {short(error)}".strip()),
                hint="Install libedgetpu1-std and plug the accelerator in; then restart the agent.",
            ) from error


class _Port:
    """An input or output of the interpreter, as the manifest names it."""

    def __init__(
        self, detail: Mapping[str, Any], quantised: QuantisedTensor | None, *, converts: bool
    ) -> None:
        self.index = int(detail["index"])
        self.dtype = np.dtype(detail["dtype"])
        self.quantised = quantised
        self._quantised = quantised if converts else None
        self._shape = tuple(int(size) for size in detail["shape"])

    def is_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether the interpreter has memory for this shape. Remembers it."""
        before, self._shape = self._shape, shape
        return before == shape

    def to_model(self, name: str, tensor: Tensor) -> Tensor:
        """Raises OperatorError ``bad_request`` for a value that has no integer."""
        if self._quantised is None:
            return tensor
        real = tensor * (np.float32(1) / np.float32(self._quantised.scale))
        if not np.isfinite(real.sum(dtype=np.float64)) and not np.isfinite(real).all():
            raise OperatorError(
                "bad_request",
                f"Input {name} has NaN or infinity, and the model is quantised: it has only the "
                f"{self.dtype} values of a finite range.",
                field=name,
            )
        # Half is rounded to even, as the runtime's own operator does with XNNPACK.
        rounded = np.rint(real) + self._quantised.zero_point
        bounds = np.iinfo(self.dtype)
        made: Tensor = np.clip(rounded, bounds.min, bounds.max).astype(self.dtype)
        return made

    def from_model(self, tensor: Tensor) -> Tensor:
        if self._quantised is None:
            return tensor
        shifted = tensor.astype(np.int32) - self._quantised.zero_point
        return shifted.astype(np.float32) * np.float32(self._quantised.scale)


class _LiteRtModel(PlainModel):
    def __init__(
        self,
        interpreter: Any,
        inputs: Mapping[str, _Port],
        outputs: Mapping[str, _Port],
        threads: Sequence[int],
    ) -> None:
        self._interpreter: Any = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self.threads = threads
        self.quantised = {
            name: port.quantised
            for name, port in (*inputs.items(), *outputs.items())
            if port.quantised is not None
        }

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        given = {name: self._inputs[name].to_model(name, inputs[name]) for name in self._inputs}
        try:
            changed = [
                name for name, one in given.items() if not self._inputs[name].is_shape(one.shape)
            ]
            if changed:
                self._resize(given)
            for name, tensor in given.items():
                self._interpreter.set_tensor(self._inputs[name].index, tensor)
            self._interpreter.invoke()
            return [
                self._outputs[name].from_model(
                    self._interpreter.get_tensor(self._outputs[name].index)
                )
                for name in outputs
            ]
        except (ValueError, RuntimeError) as error:
            for port in self._inputs.values():
                port.is_shape(())  # the next run allocates anew
            raise run_failed(error) from error

    def close(self) -> None:
        self._interpreter = None

    def _resize(self, given: Mapping[str, Tensor]) -> None:
        for name, tensor in given.items():
            self._interpreter.resize_tensor_input(
                self._inputs[name].index, tensor.shape, strict=True
            )
        self._interpreter.allocate_tensors()


def _ports(
    side: str, details: Sequence[Mapping[str, Any]], specs: tuple[TensorSpec, ...]
) -> dict[str, _Port]:
    """The ports by name. Raises PublisherError ``model_unsupported`` if they differ."""
    left = {str(detail["name"]): detail for detail in details}
    ports: dict[str, _Port] = {}
    for spec in specs:
        detail = left.pop(spec.name, None)
        if detail is None:
            check_spec(spec, None, (), side)
            continue
        datatype = _NAMES.get(np.dtype(detail["dtype"]))
        quantised = _quantised(detail, datatype)
        converts = quantised is not None and spec.datatype == "FP32"
        sizes = detail["shape_signature"]
        shape = [int(size) for size in (sizes if len(sizes) else detail["shape"])]
        check_spec(spec, "FP32" if converts else datatype, shape, side)
        ports[spec.name] = _Port(detail, quantised, converts=converts)
    if side == "inputs":
        check_inputs(list(left))
    return ports


def _quantised(detail: Mapping[str, Any], datatype: Datatype | None) -> QuantisedTensor | None:
    parameters = detail["quantization_parameters"]
    if datatype is None or len(parameters["scales"]) != 1 or datatype not in _INTEGERS:
        return None
    points = parameters["zero_points"]
    zero_point = int(points[0]) if len(points) else 0
    return QuantisedTensor(datatype, float(parameters["scales"][0]), zero_point)
