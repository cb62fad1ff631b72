"""Reads the inputs and outputs of a TFLite file, without the runtime and without running it.

The schema is tensorflow/lite/schema/schema.fbs; the numbers of fields below are its order. A full
integer model has integers as inputs and outputs, with a scale and a zero point each. A manifest
may name such a tensor FP32, as ``float_specs`` does: the runtime then converts, and clients need
not know that the variant of this profile is quantised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.flatbuffer import DamagedError, Table
from edgefleet.serving.limits import RANK, TENSORS

IDENTIFIER: Final = b"TFL3"
EDGETPU_OPERATOR: Final = "edgetpu-custom-op"

# TensorType of the schema. Those that are left out are not served.
_TYPES: Final[Mapping[int, Datatype]] = {
    0: "FP32", 1: "FP16", 2: "INT32", 3: "UINT8", 4: "INT64", 6: "BOOL", 7: "INT16", 9: "INT8",
    10: "FP64", 12: "UINT64", 15: "UINT32", 16: "UINT16",
}  # fmt: skip
_QUANTISED: Final = ("INT8", "UINT8", "INT16")
_NAME_BYTES: Final = 1_024
_GRAPHS: Final = 64
_OPERATORS: Final = 4_096
_TENSORS: Final = 1 << 20  # of a whole graph


@dataclass(frozen=True, slots=True)
class Quantised:
    """A real value is ``scale * (integer - zero_point)``."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class TfliteFacts:
    """Inputs and outputs as the file has them, and the scales of those that are quantised."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scales: Mapping[str, Quantised]
    version: int
    description: str
    custom_operators: tuple[str, ...]


def is_tflite(data: bytes) -> bool:
    """Whether the file says that it is TFLite."""
    return data[4:8] == IDENTIFIER


def read_tflite(data: bytes) -> TfliteFacts:
    """Read the facts. Raises PublisherError ``not_a_model`` or ``model_unsupported``."""
    try:
        model = Table.root(data)
        graph = _first_graph(model)
        tensors = _tensors(graph)
        scales: dict[str, Quantised] = {}
        return TfliteFacts(
            _specs("inputs", graph.numbers(1, "i", TENSORS), tensors, scales),
            _specs("outputs", graph.numbers(2, "i", TENSORS), tensors, scales),
            scales,
            model.number(0, "I"),
            model.text(3, 1 << 16),
            tuple(
                name for one in model.tables(1, _OPERATORS) if (name := one.text(1, _NAME_BYTES))
            ),
        )
    except DamagedError as error:
        raise PublisherError("not_a_model", f"The TFLite file is damaged: {error}.") from error


def float_specs(
    specs: tuple[TensorSpec, ...], scales: Mapping[str, Quantised]
) -> tuple[TensorSpec, ...]:
    """The tensors with FP32 for each quantised one."""
    return tuple(replace(one, datatype="FP32") if one.name in scales else one for one in specs)


def _first_graph(model: Table) -> Table:
    graphs = model.tables(2, _GRAPHS)
    if not graphs:
        raise DamagedError("it has no graph")
    return graphs[0]


def _tensors(graph: Table) -> "_Tensors":
    if graph.count(0) > _TENSORS:
        raise DamagedError("it has too many tensors")
    return _Tensors(graph)


class _Tensors:
    """The tensors of a graph, read when they are asked for."""

    def __init__(self, graph: Table) -> None:
        self._all = graph.tables(0, _TENSORS)

    def at(self, place: float) -> Table:
        if not 0 <= place < len(self._all):
            raise DamagedError(f"it has no tensor {place}")
        return self._all[int(place)]


def _specs(
    side: str,
    places: tuple[int | float, ...],
    tensors: _Tensors,
    scales: dict[str, Quantised],
) -> tuple[TensorSpec, ...]:
    if not places:
        raise PublisherError(
            "model_unsupported", f"The model has 0 {side}; 1 to {TENSORS} are allowed.", field=side
        )
    found = tuple(
        _spec(f"{side}[{number}]", tensors.at(place), scales) for number, place in enumerate(places)
    )
    names = [one.name for one in found]
    if len(set(names)) < len(names) or "" in names:
        raise PublisherError(
            "model_unsupported", f"The {side} have no names of their own: {names}.", field=side
        )
    return found


def _spec(field: str, tensor: Table, scales: dict[str, Quantised]) -> TensorSpec:
    name = tensor.text(3, _NAME_BYTES)
    datatype = _TYPES.get(tensor.number(1, "b"))
    sizes = tensor.numbers(7, "i", RANK) or tensor.numbers(0, "i", RANK)
    if datatype is None:
        raise PublisherError(
            "model_unsupported",
            f"Tensor {name!r} has type {tensor.number(1, 'b')} of the TFLite schema, which is not "
            "served.",
            field=field,
        )
    if not sizes:
        raise PublisherError(
            "model_unsupported",
            f"Tensor {name!r} has no shape, or is a single value without a batch.",
            field=field,
            hint="Export with a shape such as [1, 64], the batch first.",
        )
    shape = tuple(int(size) for size in sizes)
    if any(size < 1 and size != -1 for size in shape):
        raise PublisherError(
            "model_unsupported", f"Tensor {name!r} has shape {shape}.", field=field
        )
    quantised = _quantised(tensor)
    if quantised is not None and datatype in _QUANTISED:
        scales[name] = quantised
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def _quantised(tensor: Table) -> Quantised | None:
    """The scale of the whole tensor. None without one, or with one for each channel."""
    table = tensor.table(4)
    if table is None or table.count(2) != 1:
        return None
    (scale,) = table.numbers(2, "f", 1)
    points = table.numbers(3, "q", 1)
    if not 0 < scale < float("inf"):
        raise DamagedError(f"a tensor has the scale {scale}")
    return Quantised(float(scale), int(points[0]) if points else 0)
