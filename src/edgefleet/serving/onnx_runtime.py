"""ONNX Runtime, on the CPU or with TensorRT, with options for a device that has other work."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec, Variant
from edgefleet.serving.bf16 import BF16
from edgefleet.serving.checked_file import CheckedFile
from edgefleet.serving.cpu_use import foreign_threads
from edgefleet.serving.runtime import (
    LoadedModel,
    Tensor,
    check_inputs,
    check_spec,
    run_failed,
    short,
)

_TYPES: Final[Mapping[str, Datatype]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_BF16: Final = 16  # the number of BFLOAT16 in ONNX's TensorProto
_CPU: Final = "CPUExecutionProvider"


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    providers: tuple[str, ...] = (_CPU,)

    def start(self) -> None:
        self._ort()

    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": str(self._ort().__version__)}

    def load(self, file: CheckedFile, variant: Variant, *, threads: int) -> LoadedModel:
        ort = self._ort()
        self._check_providers(ort)
        earlier = foreign_threads()
        try:
            # A path: with bytes, the runtime keeps a second copy of the model.
            session = ort.InferenceSession(
                file.path, _options(ort, threads), providers=self._chosen(ort, variant)
            )
        except Exception as error:  # the runtime has a separate class for each failure
            text = short(error).replace(file.path, file.name)
            code = "not_a_model" if "protobuf" in text.lower() else "model_unsupported"
            raise PublisherError(code, f"The runtime refuses the model: {text}") from error
        self._check_used(session)
        _check_specs("inputs", session.get_inputs(), variant.inputs)
        _check_specs("outputs", session.get_outputs(), variant.outputs)
        model = _Bf16Model if _has_bf16(variant) else _OnnxModel
        return model(session, sorted(foreign_threads() - earlier))

    def _chosen(self, ort: Any, variant: Variant) -> list[object]:
        """The providers with their options, as a session takes them."""
        del ort, variant
        return list(self.providers)

    def _check_providers(self, ort: Any) -> None:
        """Raises DeviceError ``runtime_missing`` if the build lacks the first provider."""
        wanted = self.providers[0]
        if wanted not in ort.get_available_providers():
            raise DeviceError(
                "runtime_missing",
                f"onnxruntime {ort.__version__} of this device has no {wanted}. It has: "
                f"{', '.join(ort.get_available_providers())}.",
                hint="Install the build of ONNX Runtime for this board, such as onnxruntime-gpu.",
            )

    def _check_used(self, session: Any) -> None:
        """Raises DeviceError ``runtime_missing`` if the runtime fell back to another provider."""
        wanted = self.providers[0]
        if wanted not in session.get_providers():
            raise DeviceError(
                "runtime_missing",
                f"{wanted} does not start on this device: a library of it is missing. Without "
                f"this error the model would run with {', '.join(session.get_providers())}.",
                hint="Install the libraries that the provider needs, for TensorRT libnvinfer and "
                "CUDA in the versions of the build.",
            )

    @staticmethod
    def _ort() -> Any:
        try:
            import onnxruntime  # noqa: PLC0415 - saves 50 ms in other programs
        except ImportError as error:
            raise DeviceError("runtime_missing", "onnxruntime is not installed.") from error
        return onnxruntime


class TensorRtRuntime(OnnxRuntime):
    """ONNX Runtime with TensorRT. Nodes that TensorRT does not support run with CUDA or the CPU."""

    providers = ("TensorrtExecutionProvider", "CUDAExecutionProvider", _CPU)

    def versions(self) -> Mapping[str, str]:
        self._check_providers(self._ort())
        from edgefleet.serving.engine_cache import tensorrt_version  # noqa: PLC0415 - on GPUs only

        found = tensorrt_version()
        return {**super().versions(), **({"tensorrt": found} if found else {})}

    def _chosen(self, ort: Any, variant: Variant) -> list[object]:
        from edgefleet.serving.engine_cache import provider_options  # noqa: PLC0415 - on GPUs only

        first, *others = self.providers
        return [(first, provider_options(variant, str(ort.__version__))), *others]


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # A spinning thread would use the core that the event loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


class _Bound:
    """A run of a session from arrays into arrays. The session has their addresses only."""

    def __init__(
        self, session: Any, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> None:
        self._run = session.run_with_iobinding
        self._binding = session.io_binding()
        self._kept = (*inputs.values(), *outputs.values())
        for bind, arrays in (
            (self._binding.bind_input, inputs),
            (self._binding.bind_output, outputs),
        ):
            for name, array in arrays.items():
                element = _BF16 if array.dtype == BF16 else array.dtype.type
                bind(name, "cpu", 0, element, array.shape, array.ctypes.data)

    def __call__(self) -> None:
        try:
            self._run(self._binding)
        except Exception as error:  # the runtime has a separate class for each failure
            raise run_failed(error) from error


class _OnnxModel:
    def __init__(self, session: Any, threads: Sequence[int]) -> None:
        self._session: Any = session
        self.threads = threads

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        try:
            made: list[Tensor] = self._session.run(outputs, inputs)
        except Exception as error:  # the runtime has a separate class for each failure
            raise run_failed(error) from error
        return made

    def bind(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Callable[[], None]:
        return _Bound(self._session, inputs, outputs)

    def close(self) -> None:
        self._session = None


class _Bf16Model(_OnnxModel):
    """A model with a BF16 tensor, which ``run`` of the session neither takes nor gives."""

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        try:
            given = {name: _ort_value(array) for name, array in inputs.items()}
            made = self._session.run_with_ort_values(list(outputs), given)
            return [_array_of(value) for value in made]
        except Exception as error:  # the runtime has a separate class for each failure
            raise run_failed(error) from error


def _ort_value(array: Tensor) -> Any:
    """A value of the runtime in the memory of ``array``."""
    import onnxruntime  # noqa: PLC0415 - loaded already

    array = np.ascontiguousarray(array)
    if array.dtype != BF16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BF16)


def _array_of(value: Any) -> Tensor:
    """The array of a value of the runtime. BF16 is copied: the runtime has no array of it."""
    if value.element_type() != _BF16:
        made: Tensor = value.numpy()
        return made
    if value.device_name().lower() != "cpu":
        raise DeviceError("inference_failed", f"An output is in memory of {value.device_name()}.")
    array = np.empty(value.shape(), BF16)
    if array.size:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _has_bf16(variant: Variant) -> bool:
    """Raises PublisherError ``model_unsupported`` for inputs that Python cannot give together."""
    if all(spec.datatype != "BF16" for spec in (*variant.inputs, *variant.outputs)):
        return False
    for spec in variant.inputs:
        if spec.datatype == "BYTES":
            raise PublisherError(
                "model_unsupported",
                f"Input {spec.name} is BYTES, and another tensor is BF16: ONNX Runtime for Python "
                "has no such model.",
                field="variant.inputs",
                hint="Cast the BF16 tensors to FP32 in the graph.",
            )
    return True


def _check_specs(side: str, nodes: Sequence[Any], specs: tuple[TensorSpec, ...]) -> None:
    """Raises PublisherError ``model_unsupported`` if tensors of manifest and file differ."""
    found = {node.name: node for node in nodes}
    for spec in specs:
        node = found.pop(spec.name, None)
        if node is None:
            check_spec(spec, None, (), side)
        else:
            check_spec(spec, _TYPES.get(node.type), list(node.shape), side)
    if side == "inputs":
        check_inputs(list(found))
