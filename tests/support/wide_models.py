"""A model with large tensors, and an output whose shape depends on the data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefleet.protocol.release import Quality, TensorSpec, Variant
from edgefleet.protocol.serving import ServedModel, ServedRelease
from support.http1_wire import Got
from support.tiny_models import save, variant_of

FLOATS = 40_000


@dataclass(frozen=True)
class WideModel:
    """``x`` FP32 [-1, FLOATS] -> ``scores`` [-1, 2], ``double`` [-1, FLOATS], ``found`` [2, -1]."""

    path: Path
    variant: Variant

    def activate(self, isolation: Any) -> ServedModel:
        release = ServedRelease(
            release="1",
            variant=self.variant,
            quality=Quality(output="scores", scores="probabilities"),
            artifact_path=str(self.path),
        )
        return ServedModel(model="digits", confirmed=release, isolation=isolation)

    def request(
        self, given: NDArray[np.float32], names: tuple[str, ...], *, padding: int = 0
    ) -> tuple[bytes, bytes]:
        """The JSON, longer by ``padding``, and the bytes after it."""
        data = given.tobytes()
        one = {
            "name": "x",
            "datatype": "FP32",
            "shape": given.shape,
            "parameters": {"binary_data_size": len(data)},
        }
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in names]
        head = json.dumps({"id": "x" * padding, "inputs": [one], "outputs": outputs})
        return head.encode(), data

    def double(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        return given * 2

    def faults(self, got: Got, given: NDArray[np.float32], names: tuple[str, ...]) -> list[str]:
        """The outputs of an answer that are not those of the model."""
        if got.status != 200:
            return [f"{got.status} {got.body[:200]!r}"]
        at = int(got.headers["inference-header-content-length"])
        outputs = json.loads(got.body[:at])["outputs"]
        assert [one["name"] for one in outputs] == list(names)
        wanted = {"double": self.double(given), "found": np.array(np.nonzero(given > 2.5))}
        found: list[str] = []
        for one in outputs:
            size = one["parameters"]["binary_data_size"]
            expected = wanted[one["name"]]
            value = np.frombuffer(got.body[at : at + size], expected.dtype).reshape(one["shape"])
            if value.shape != expected.shape or (value != expected).any():
                found.append(f"{one['name']} is wrong")
            at += size
        return found


Model = TypeVar("Model", bound=WideModel)


def wide(path: Path, kind: type[Model] = WideModel) -> Model:  # type: ignore[assignment]
    weights = np.random.default_rng(1).normal(0, 0.01, (FLOATS, 2)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32([2]), "two"),
        numpy_helper.from_array(np.float32([2.5]), "much"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        helper.make_node("Mul", ["x", "two"], ["double"]),
        helper.make_node("Greater", ["x", "much"], ["above"]),
        helper.make_node("NonZero", ["above"], ["found"]),
    ]
    save(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FLOATS])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("double", TensorProto.FLOAT, ["batch", FLOATS]),
            helper.make_tensor_value_info("found", TensorProto.INT64, [2, "count"]),
        ],
        constants,
    )
    variant = variant_of(
        path,
        (TensorSpec(name="x", datatype="FP32", shape=(-1, FLOATS)),),
        (
            TensorSpec(name="scores", datatype="FP32", shape=(-1, 2)),
            TensorSpec(name="double", datatype="FP32", shape=(-1, FLOATS)),
            TensorSpec(name="found", datatype="INT64", shape=(2, -1)),
        ),
    )
    return kind(path, variant)
