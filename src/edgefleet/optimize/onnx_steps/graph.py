"""Reading and writing of ONNX graphs, and the errors of the tools that change them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.optimize.recipe import Step
from edgefleet.serving.causes import cause
from edgefleet.serving.limits import DETAIL_CHARS

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

REVISION: Final = "2"
"""Of the code of these steps. A change of the bytes that they make needs another."""


def read_graph(path: Path) -> ModelProto:
    """The model, without the shapes of inner tensors that its exporter noted.

    Exporters note shapes that contradict shape inference (torch's dynamo exporter does), and the
    quantizers of ONNX Runtime then fail. They infer the shapes again.
    """
    import onnx  # noqa: PLC0415 - 31 MiB, needed for steps only

    model = onnx.load(path, load_external_data=False)
    del model.graph.value_info[:]
    for function in model.functions:
        del function.value_info[:]
    return model


def write_graph(model: ModelProto, path: Path) -> None:
    """Write the model. Equal models give equal bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def sort_nodes(graph: GraphProto) -> None:
    """Put every node behind those whose outputs it reads, and change the order no further.

    Converters append nodes at the end, which ONNX Runtime accepts and ``onnx.checker`` refuses.
    """
    made_by = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    nodes, placed, order = list(graph.node), set[int](), list[int]()
    for start in range(len(nodes)):
        waiting = [start]
        while waiting:
            at = waiting[-1]
            before = {made_by[name] for name in _read_by(nodes[at]) if name in made_by} - placed
            before.discard(at)
            if at in placed or before & set(waiting):  # a circle is left to the checker
                waiting.pop()
            elif before:
                waiting += sorted(before, reverse=True)
            else:
                placed.add(waiting.pop())
                order.append(at)
    del graph.node[:]
    graph.node.extend(nodes[at] for at in order)


def _read_by(node: NodeProto) -> set[str]:
    """The tensors that a node reads, in its bodies, too."""
    found = set(node.input)
    for body in _bodies(node):
        found |= names_in_subgraphs(body) | {name for one in body.node for name in one.input}
        found |= {info.name for info in body.output}
    return found


def names_in_subgraphs(graph: GraphProto) -> set[str]:
    """The names that bodies of Loop, If and Scan read: a tensor of the graph outside may be one."""
    found: set[str] = set()
    inner = [one for node in graph.node for one in _bodies(node)]
    while inner:
        body = inner.pop()
        for node in body.node:
            found.update(node.input)
            inner += _bodies(node)
        found.update(info.name for info in body.output)
    return found


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [
        body
        for attribute in node.attribute
        for body in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ()))
    ]


@contextmanager
def tool_errors(step: Step) -> Generator[None]:
    """Turn every error of a tool into PublisherError ``step_failed`` with the tool's words."""
    try:
        yield
    except EdgefleetError:
        raise
    except Exception as error:  # each tool raises what it likes
        raise PublisherError(
            "step_failed",
            f"The step {step.__struct_config__.tag} failed: {cause(error, DETAIL_CHARS)}",
        ) from error


def tool_versions(*packages: str) -> Mapping[str, str]:
    """The versions of installed packages, and the revision of these steps."""
    found = {"onnx_steps": REVISION}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
