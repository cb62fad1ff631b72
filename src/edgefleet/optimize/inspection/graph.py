"""The graph of a model, of either format, and the memory that it needs by estimate.

The estimate is ``weights + largest live activations``: the bytes of all constants, and the largest
sum of the tensors that are needed at the same time while the operators run in the order of the
file. Runtimes differ in both directions: they fuse operators and compute in place (less), and pack
weights, keep an arena and load their own code (more). So it ranks models and finds those that
cannot fit; the figure for a decision is the peak that is measured when a candidate runs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import prod

from edgefleet.protocol.wire import Wire


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a node reads or makes. ``shape`` is None if the file does not tell it.

    ``bits`` are those of one element; 0 for text, whose size is not known. ``open_sizes`` counts
    the sizes, apart from the batch, which the file leaves open: they are 1 in ``shape``. A
    ``fused`` tensor is a constant made float: runtimes compute with the integers and never make it.
    """

    datatype: str
    bits: int
    shape: tuple[int, ...] | None
    constant: bool = False
    open_sizes: int = 0
    fused: bool = False

    @property
    def elements(self) -> int:
        return 0 if self.shape is None else prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """As the runtime holds it."""
        return 0 if self.fused else (self.elements * self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in the order of the file, with the names of its tensors."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelGraph:
    """A model at ``batch``. ``nested`` are operators inside of others (If, Loop)."""

    batch: int
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nested: tuple[str, ...] = ()


class OperatorFacts(Wire, frozen=True, kw_only=True):
    """All operators of one type. ``parameters`` are elements of the constants that they read.

    ``largest_output`` is the shape of the largest tensor that one of them makes.
    """

    operator: str
    count: int
    parameters: int = 0
    largest_output: tuple[int, ...] = ()


class MemoryEstimate(Wire, frozen=True, kw_only=True):
    """Bytes that the model needs at ``batch``, by ``formula``.

    ``peak_at`` is the operator during which most activations are live. ``unknown_tensors`` have no
    known size and are not in the sum: with any, the estimate is a lower bound.
    """

    batch: int
    weights_bytes: int
    activations_bytes: int
    total_bytes: int
    peak_at: str
    unknown_tensors: int
    formula: str = "constants + largest sum of tensors that are live at one operator"


def operators(graph: ModelGraph) -> tuple[OperatorFacts, ...]:
    """The operators by type, the most frequent first."""
    counts = Counter([*(node.operator for node in graph.nodes), *graph.nested])
    parameters: Counter[str] = Counter()
    largest: dict[str, Tensor] = {}
    counted: set[str] = set()
    for node in graph.nodes:
        for name in set(node.inputs) - counted:
            tensor = graph.tensors.get(name)
            if tensor is not None and tensor.constant:
                parameters[node.operator] += tensor.elements
                counted.add(name)
        for name in node.outputs:
            tensor = graph.tensors.get(name)
            before = largest.get(node.operator)
            if tensor is not None and (before is None or tensor.elements > before.elements):
                largest[node.operator] = tensor
    return tuple(
        OperatorFacts(
            operator=name,
            count=count,
            parameters=parameters[name],
            largest_output=(largest[name].shape or ()) if name in largest else (),
        )
        for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    )


def parameters(graph: ModelGraph) -> int:
    """The elements of all constants."""
    return sum(tensor.elements for tensor in graph.tensors.values() if tensor.constant)


def weights_by_type(graph: ModelGraph) -> dict[str, int]:
    """The bytes of constants by datatype, the largest first."""
    sizes: Counter[str] = Counter()
    for tensor in graph.tensors.values():
        if tensor.constant and tensor.size_bytes:
            sizes[tensor.datatype] += tensor.size_bytes
    return dict(sizes.most_common())


def memory(graph: ModelGraph) -> MemoryEstimate:
    """The estimate of the module's description."""
    weights = sum(one.size_bytes for one in graph.tensors.values() if one.constant)
    most, at = 0, ""
    for node, live in _live(graph):
        total = sum(graph.tensors[name].size_bytes for name in live if name in graph.tensors)
        if total > most:
            most, at = total, node.operator
    return MemoryEstimate(
        batch=graph.batch,
        weights_bytes=weights,
        activations_bytes=most,
        total_bytes=weights + most,
        peak_at=at,
        unknown_tensors=_unknown(graph),
    )


def _unknown(graph: ModelGraph) -> int:
    made = {name for node in graph.nodes for name in node.outputs} | set(graph.inputs)
    known = {
        name
        for name in made
        if (one := graph.tensors.get(name)) is not None
        and one.shape is not None
        and one.bits
        and not one.open_sizes
    }
    return len(made - known)


def _live(graph: ModelGraph) -> Iterator[tuple[Node, AbstractSet[str]]]:
    """Each node with the activations that are live while it runs."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    live = set(graph.inputs)
    for place, node in enumerate(graph.nodes):
        live |= set(node.outputs)
        yield node, live
        live = {name for name in live if last.get(name, -1) > place}
