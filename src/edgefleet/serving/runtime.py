"""Model runtimes. ONNX Runtime is the only one; another needs ``load`` and ``run``."""

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median_low
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec, Variant
from edgefleet.serving.causes import cause
from edgefleet.serving.cpu_use import foreign_threads
from edgefleet.serving.limits import DETAIL_CHARS, WARM_UP_RUNS

Tensor = NDArray[Any]

NUMPY_TYPES: Final[Mapping[Datatype, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}

_ORT_TYPES: Final[Mapping[str, Datatype]] = {
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
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_PIECE_BYTES: Final = 256 << 10
_PAUSE_S: Final = 0.001
_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


class LoadedModel(Protocol):
    """A loaded and warmed-up model. ``run`` may be called from one thread at a time."""

    @property
    def threads(self) -> Sequence[int]:
        """The threads of the runtime that work for this model alone. Empty if there are none."""
        ...

    @property
    def run_us(self) -> int:
        """CPU time of one run of the largest batch, in microseconds. 0 if it is not known."""
        ...

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Infer. Text is ``str`` in object arrays. Raises DeviceError ``inference_failed``."""
        ...

    def bind(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Callable[[], None]:
        """A function that infers from ``inputs`` into ``outputs``, without copies.

        The arrays are contiguous and have no text. The function keeps them, and so the memory that
        they are views of. It raises DeviceError ``inference_failed``, also if the outputs do not
        have the shapes of the arrays.
        """
        ...


class Runtime(Protocol):
    """Loads models from files."""

    def start(self) -> None:
        """Load the runtime itself. Raises DeviceError ``runtime_missing``."""
        ...

    def version(self) -> str:
        """The installed version. Raises DeviceError ``runtime_missing``."""
        ...

    def load(self, path: Path, variant: Variant, *, gently: bool = False) -> LoadedModel:
        """Read the model at ``path``, check it against ``variant`` and warm it up.

        ``gently`` reads with pauses, in which other threads get the core.

        Raises PublisherError ``digest_mismatch``, ``not_a_model`` or ``model_unsupported``,
        OperatorError ``not_found``, DeviceError ``runtime_missing`` or ``inference_failed``.
        """
        ...


def runtime_for(variant: Variant) -> Runtime:
    """The runtime of ``variant``."""
    match variant.runtime:
        case "onnx":
            return OnnxRuntime()


class OnnxRuntime:
    """ONNX Runtime on the CPU, with options for a device whose cores have other work."""

    def start(self) -> None:
        self._ort()

    def version(self) -> str:
        return str(self._ort().__version__)

    def load(self, path: Path, variant: Variant, *, gently: bool = False) -> LoadedModel:
        ort = self._ort()
        options = ort.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        # A spinning thread would use the core that the event loop needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        earlier = foreign_threads()
        with _checked(path, variant, gently=gently) as copy:
            try:
                session = ort.InferenceSession(copy, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # the runtime has a separate class for each failure
                text = _short(error).replace(copy, path.name)
                code = "not_a_model" if "protobuf" in text.lower() else "model_unsupported"
                raise PublisherError(code, f"The runtime refuses the model: {text}") from error
        _check_specs("inputs", session.get_inputs(), variant.inputs)
        _check_specs("outputs", session.get_outputs(), variant.outputs)
        return _OnnxModel(session, variant, sorted(foreign_threads() - earlier))

    @staticmethod
    def _ort() -> Any:
        try:
            import onnxruntime  # noqa: PLC0415 - saves 50 ms in other programs
        except ImportError as error:
            raise DeviceError("runtime_missing", "onnxruntime is not installed.") from error
        return onnxruntime


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
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def __call__(self) -> None:
        try:
            self._run(self._binding)
        except Exception as error:  # the runtime has a separate class for each failure
            raise _failed(error) from error


class _OnnxModel:
    def __init__(self, session: Any, variant: Variant, threads: Sequence[int]) -> None:
        self._session = session
        self.threads = threads
        self.run_us = 0
        self._warm_up(variant)

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        try:
            made: list[Tensor] = self._session.run(outputs, inputs)
        except Exception as error:  # the runtime has a separate class for each failure
            raise _failed(error) from error
        return made

    def bind(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Callable[[], None]:
        return _Bound(self._session, inputs, outputs)

    def _warm_up(self, variant: Variant) -> None:
        """Run on zeros, so that the first request has no allocations.

        Skipped if a size other than the batch is open: zeros of a guessed size may not fit.
        """
        if any(-1 in spec.shape[1:] for spec in variant.inputs):
            return
        outputs = [spec.name for spec in variant.outputs]
        for batch in sorted({1, variant.max_batch}):
            inputs = {spec.name: _zeros(spec, batch) for spec in variant.inputs}
            took_us: list[int] = []
            for _ in range(WARM_UP_RUNS):
                began_ns = time.thread_time_ns()
                self.run(inputs, outputs)
                took_us.append((time.thread_time_ns() - began_ns) // 1_000)
            self.run_us = median_low(took_us)


def thread_count() -> int:
    """Whole CPUs in the cgroup's quota, 1 without a quota: other programs need the cores too."""
    try:
        quota, period = _CPU_MAX.read_text().split()
    except (OSError, ValueError):
        return 1
    if quota == "max":
        return 1
    return max(1, min(int(quota) // int(period), len(os.sched_getaffinity(0))))


@contextmanager
def _checked(path: Path, variant: Variant, *, gently: bool) -> Generator[str]:
    """The path of a checked copy of the artifact in memory, so that the loaded bytes are checked.

    Neither the copy nor its digest blocks other threads, and the runtime reads a file in a fifth of
    the time for which it blocks them with bytes.
    """
    digest = sha256()
    with open(os.memfd_create("artifact"), "w+b", buffering=0) as copy:  # noqa: PTH123 - has no path
        try:
            with path.open("rb", buffering=0) as file:
                at = 0
                while sent := os.sendfile(copy.fileno(), file.fileno(), at, _PIECE_BYTES):
                    digest.update(os.pread(copy.fileno(), sent, at))
                    at += sent
                    if gently:
                        time.sleep(_PAUSE_S)
        except OSError as error:
            raise OperatorError(
                "not_found",
                f"The artifact cannot be read: {error.strerror}.",
                field="artifact_path",
            ) from error
        if digest.hexdigest() != variant.artifact.sha256:
            raise PublisherError(
                "digest_mismatch", "The file does not match the SHA-256 of the variant's artifact."
            )
        yield f"/proc/self/fd/{copy.fileno()}"


def _check_specs(side: str, nodes: Sequence[Any], specs: tuple[TensorSpec, ...]) -> None:
    """Raises PublisherError ``model_unsupported`` if tensors of manifest and file differ."""
    found = {node.name: (_ORT_TYPES.get(node.type), list(node.shape)) for node in nodes}
    for spec in specs:
        datatype, shape = found.pop(spec.name, (None, []))
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(size, int) or size in (declared, -1)
            for size, declared in zip(shape, spec.shape, strict=True)
        )
        if datatype != spec.datatype or not fits:
            fixed = shape[:1] and isinstance(shape[0], int) and spec.shape[:1] == (-1,)
            raise PublisherError(
                "model_unsupported",
                f"Tensor {spec.name} is {spec.datatype} {list(spec.shape)} in the manifest, "
                f"{datatype} {shape} in the model, as the runtime reads it."
                + (f" A batch of {shape[0]} is built into the graph." if fixed else ""),
                field=f"variant.{side}",
            )
    if found and side == "inputs":
        raise PublisherError(
            "model_unsupported",
            f"The manifest lacks input {min(found)} of the model.",
            field="variant.inputs",
        )


def _failed(error: Exception) -> DeviceError:
    return DeviceError("inference_failed", f"The model failed: {_short(error)}")


def _zeros(spec: TensorSpec, batch: int) -> Tensor:
    shape = tuple(batch if size == -1 else size for size in spec.shape)
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, NUMPY_TYPES[spec.datatype])


def _short(error: BaseException) -> str:
    return cause(error, DETAIL_CHARS)
