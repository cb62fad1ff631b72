"""The graph of a TFLite file, read without the runtime. Field numbers are those of schema.fbs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.inspection.graph import ModelGraph, Node, Tensor
from edgefleet.optimize.inspection.tflite_operators import OPERATORS
from edgefleet.serving.flatbuffer import DamagedError, Table
from edgefleet.serving.limits import RANK, TENSORS

# TensorType of the schema, with the bits of one element.
_TYPES: Final[Mapping[int, tuple[str, int]]] = {
    0: ("FP32", 32), 1: ("FP16", 16), 2: ("INT32", 32), 3: ("UINT8", 8), 4: ("INT64", 64),
    5: ("BYTES", 0), 6: ("BOOL", 8), 7: ("INT16", 16), 9: ("INT8", 8), 10: ("FP64", 64),
    12: ("UINT64", 64), 15: ("UINT32", 32), 16: ("UINT16", 16), 17: ("INT4", 4),
}  # fmt: skip
_CUSTOM: Final = 32
_MANY: Final = 1 << 20


def read_tflite_graph(path: Path, batch: int) -> ModelGraph:
    """The first graph of a file that ``inspect_model`` has accepted.

    An open batch is set to ``batch``: the sizes of activations that begin with the batch of the
    file grow with it. Raises PublisherError ``not_a_model``.
    """
    try:
        return _read(path.read_bytes(), batch)
    except DamagedError as error:
        raise PublisherError("not_a_model", f"The TFLite file is damaged: {error}.") from error


def _read(data: bytes, batch: int) -> ModelGraph:
    model = Table.root(data)
    codes = [_operator_name(one) for one in model.tables(1, _MANY)]
    filled = [one.count(0) > 0 or one.number(2, "Q") > 0 for one in model.tables(4, _MANY)]
    graphs = model.tables(2, _MANY)
    if not graphs:
        raise DamagedError("it has no graph")
    tables = graphs[0].tables(0, _MANY)
    inputs = _places(graphs[0], 1, TENSORS, len(tables))
    outputs = _places(graphs[0], 2, TENSORS, len(tables))
    base, is_open = _batch(tables, inputs)
    scale = batch if is_open else 1
    tensors = {
        str(place): _tensor(table, filled, base, scale) for place, table in enumerate(tables)
    }
    return ModelGraph(
        batch if is_open else base,
        _nodes(graphs[0], codes, len(tables)),
        tensors,
        tuple(map(str, inputs)),
        tuple(map(str, outputs)),
        tuple(
            node.operator
            for graph in graphs[1:]
            for node in _nodes(graph, codes, len(graph.tables(0, _MANY)))
        ),
    )


def _nodes(graph: Table, codes: list[str], tensors: int) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for one in graph.tables(3, _MANY):
        code = one.number(0, "I")
        if code >= len(codes):
            raise DamagedError(f"it has no operator code {code}")
        taken = _places(one, 1, _MANY, tensors, missing=True)
        made = _places(one, 2, _MANY, tensors)
        nodes.append(Node(codes[code], tuple(map(str, taken)), tuple(map(str, made))))
    return tuple(nodes)


def _places(
    table: Table, field: int, most: int, tensors: int, *, missing: bool = False
) -> list[int]:
    """Places of tensors. -1 is an input that is left out, where some may be ``missing``."""
    places = [int(place) for place in table.numbers(field, "i", most)]
    places = [place for place in places if place != -1] if missing else places
    for place in places:
        if not 0 <= place < tensors:
            raise DamagedError(f"it has no tensor {place}")
    return places


def _operator_name(code: Table) -> str:
    number = max(code.number(3, "i"), code.number(0, "b"))
    if number == _CUSTOM:
        return code.text(1, 1_024) or "CUSTOM"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"OPERATOR_{number}"


def _batch(tables: tuple[Table, ...], inputs: list[int]) -> tuple[int, bool]:
    """The batch of the file, and whether its inputs leave it open."""
    first = tables[inputs[0]] if inputs else None
    shape = first.numbers(0, "i", RANK) if first else ()
    open_ = first.numbers(7, "i", RANK) if first else ()
    return int(shape[0]) if shape else 1, bool(open_) and open_[0] == -1


def _tensor(table: Table, filled: list[bool], base: int, scale: int) -> Tensor:
    datatype, bits = _TYPES.get(table.number(1, "b"), ("UNKNOWN", 0))
    buffer = table.number(2, "I")
    constant = 0 < buffer < len(filled) and filled[buffer]
    shape = tuple(int(size) for size in table.numbers(0, "i", RANK))
    if constant:
        return Tensor(datatype, bits, shape or (1,), constant=True)
    signature = table.numbers(7, "i", RANK)
    open_sizes = sum(size == -1 for size in signature[1:])
    if shape and shape[0] == base and scale != 1:
        shape = (shape[0] * scale, *shape[1:])
    return Tensor(datatype, bits, tuple(max(1, size) for size in shape), open_sizes=open_sizes)
