"""The interface of a model runtime, and the runtimes of this installation.

A runtime of edgefleet is a module of this package; a runtime of a user is an entry point of the
group ``edgefleet.runtimes``. docs/runtimes.md is the user's page. ``serving.loading`` loads a model
for serving.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import LAYOUTS, Datatype, TensorSpec, Variant
from edgefleet.protocol.runtimes import BUILT_IN, GROUP
from edgefleet.serving.causes import cause
from edgefleet.serving.checked_file import CheckedFile
from edgefleet.serving.limits import DETAIL_CHARS

Tensor = NDArray[Any]

NUMPY_TYPES: Final[Mapping[Datatype, np.dtype[Any]]] = {
    datatype: np.dtype(layout) for datatype, layout in LAYOUTS.items()
}


class QuantisedTensor(msgspec.Struct, frozen=True):
    """An input or output that the file has as integers: real = scale * (integer - zero_point).

    ``datatype`` is that of the file. If the manifest says FP32, the runtime converts.
    """

    datatype: Datatype
    scale: float
    zero_point: int


class LoadedModel(Protocol):
    """A loaded model. ``run`` may be called from one thread at a time."""

    @property
    def threads(self) -> Sequence[int]:
        """The threads of the runtime that work for this model alone. Empty if there are none."""
        ...

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Infer. Text is ``str`` in object arrays. Raises DeviceError ``inference_failed``.

        The arrays of the answer are not written to by a later run.
        """
        ...

    def bind(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Callable[[], None]:
        """A function that infers from ``inputs`` into ``outputs``, with as few copies as it can.

        The arrays are contiguous and have no text. The function keeps them, and so the memory that
        they are views of. It raises DeviceError ``inference_failed``, also if the outputs do not
        have the shapes of the arrays.
        """
        ...

    def close(self) -> None:
        """Free the memory of the model. No run follows."""
        ...


class PlainModel:
    """A base for a LoadedModel: ``bind`` runs and copies, and there are no threads."""

    threads: Sequence[int] = ()
    quantised: Mapping[str, QuantisedTensor] = {}

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        raise NotImplementedError

    def bind(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Callable[[], None]:
        names = list(outputs)

        def run() -> None:
            for name, made in zip(names, self.run(inputs, names), strict=True):
                if made.shape != outputs[name].shape:
                    raise DeviceError("inference_failed", f"Output {name} changed its shape.")
                outputs[name][...] = made

        return run

    def close(self) -> None:
        """Nothing is freed but by the end of the object."""


class Runtime(Protocol):
    """Loads model files. An object without state: a process may make several."""

    def start(self) -> None:
        """Load the libraries of the runtime. Raises DeviceError ``runtime_missing``."""
        ...

    def versions(self) -> Mapping[str, str]:
        """The versions by the name of each part, the runtime first.

        Raises DeviceError ``runtime_missing``.
        """
        ...

    def load(self, file: CheckedFile, variant: Variant, *, threads: int) -> LoadedModel:
        """Load the checked file and compare its tensors with ``variant``.

        A run may use ``threads`` threads, which do not spin when they have no work. ``file`` is
        open during the call only.

        Raises PublisherError ``not_a_model`` or ``model_unsupported``, DeviceError
        ``runtime_missing`` with the part that is missing.
        """
        ...


_MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx": ("edgefleet.serving.onnx_runtime", "OnnxRuntime"),
    "tensorrt": ("edgefleet.serving.onnx_runtime", "TensorRtRuntime"),
    "litert": ("edgefleet.serving.litert_runtime", "LiteRtRuntime"),
    "edgetpu": ("edgefleet.serving.litert_runtime", "EdgeTpuRuntime"),
}
assert _MODULES.keys() == set(BUILT_IN)  # noqa: S101 - two halves of one table


def runtime_for(variant: Variant) -> Runtime:
    """The runtime of ``variant``. Raises DeviceError ``runtime_missing``."""
    return named_runtime(variant.runtime)


def named_runtime(name: str) -> Runtime:
    """The runtime called ``name``. Raises DeviceError ``runtime_missing``."""
    if name in _MODULES:
        module, attribute = _MODULES[name]
        found: Runtime = getattr(import_module(module), attribute)()
        return found
    for point in entry_points(group=GROUP, name=name):
        try:
            made: Runtime = point.load()()
        except Exception as error:  # a user's own code, which may raise anything
            raise DeviceError(
                "runtime_missing", f"Runtime {name} ({point.value}) cannot be used: {short(error)}"
            ) from error
        return made
    raise DeviceError(
        "runtime_missing",
        f"No runtime {name} is installed: it is not one of {', '.join(BUILT_IN)}, and no package "
        f"has an entry point {name} in the group {GROUP}.",
    )


def quantised_tensors(model: LoadedModel) -> Mapping[str, QuantisedTensor]:
    """The quantised inputs and outputs of the file, by name: the attribute ``quantised``.

    Empty for a model without this attribute: a runtime need not have it.
    """
    found: Mapping[str, QuantisedTensor] = getattr(model, "quantised", {})
    return found


def check_spec(
    spec: TensorSpec, datatype: Datatype | None, shape: Sequence[object], side: str
) -> None:
    """Compare a tensor of the manifest with that of the file. A size that is no number is open.

    Raises PublisherError ``model_unsupported`` with the field ``variant.inputs`` or ``.outputs``.
    """
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(size, int) or size in (declared, -1)
        for size, declared in zip(shape, spec.shape, strict=True)
    )
    if datatype == spec.datatype and fits:
        return
    fixed = shape[:1] and isinstance(shape[0], int) and spec.shape[:1] == (-1,)
    raise PublisherError(
        "model_unsupported",
        f"Tensor {spec.name} is {spec.datatype} {list(spec.shape)} in the manifest, "
        f"{datatype} {list(shape)} in the model, as the runtime reads it."
        + (f" A batch of {shape[0]} is built into the graph." if fixed else ""),
        field=f"variant.{side}",
    )


def check_inputs(left: Sequence[str]) -> None:
    """Raises PublisherError ``model_unsupported`` if the manifest lacks inputs of the file."""
    if left:
        raise PublisherError(
            "model_unsupported",
            f"The manifest lacks input {min(left)} of the model.",
            field="variant.inputs",
        )


def run_failed(error: BaseException) -> DeviceError:
    """The error of a run that failed in the runtime."""
    return DeviceError("inference_failed", f"The model failed: {short(error)}")


def short(error: BaseException) -> str:
    """The cause, as much of it as a message shows."""
    return cause(error, DETAIL_CHARS)
