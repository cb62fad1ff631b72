"""Small real ONNX models with golden sets and manifests, built in milliseconds."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefleet.protocol.release import Artifact, Golden, Quality, TensorSpec, Variant
from edgefleet.protocol.serving import ProveRequest, ServedModel, ServedRelease

PIXELS = 64
CLASSES = 10
HANGS_ABOVE = 100.0
"""A model that hangs loops for ever on a picture with a larger value. No golden set has one."""


@dataclass(frozen=True)
class TinyModel:
    """A model file and its manifest entry."""

    path: Path
    variant: Variant
    weights: NDArray[np.float32]

    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The model's output, computed with NumPy."""
        logits = pixels.astype(np.float32) @ self.weights
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def activate(self, release: str = "1", model: str = "digits") -> ServedModel:
        """The model, with this release as the confirmed one."""
        return ServedModel(model=model, confirmed=self.served(release))

    def served(self, release: str = "1") -> ServedRelease:
        return ServedRelease(
            release=release,
            variant=self.variant,
            quality=Quality(output="probabilities", scores="probabilities"),
            artifact_path=str(self.path),
        )


def classifier(
    path: Path,
    *,
    seed: int = 1,
    batch: int | None = None,
    max_batch: int = 8,
    profile: str = "generic_x86",
    hidden: int = 0,
    chain: int = 0,
    ballast_mib: int = 0,
    input_name: str = "pixels",
    hangs: bool = False,
    description: str = "",
    turn: int = 0,
) -> TinyModel:
    """``pixels`` FP32 [-1, 64] -> ``probabilities`` FP32 [-1, 10]; a fixed first size if ``batch``.

    ``hidden`` puts that many 512-wide layers in front, which change no value but take time.
    ``chain`` likewise, with the weights of one layer, so that the file stays small.
    ``ballast_mib`` adds weights of that size, which change no value but take memory. With ``hangs``
    the model loops for ever on what no golden set has, see HANGS_ABOVE. A ``description`` may mark
    it for the runtime of ``support/bad_runtime``. A ``turn`` moves each class by so many: other
    answers with the same confidence.
    """
    random = np.random.default_rng(seed)
    weights = random.normal(0, 1, (PIXELS, CLASSES)).astype(np.float32)
    weights = np.ascontiguousarray(np.roll(weights, turn, axis=1))
    nodes, constants, last = [], [numpy_helper.from_array(weights, "weights")], input_name
    for layer in range(hidden):
        wide = np.eye(PIXELS, 512, dtype=np.float32)
        constants += [
            numpy_helper.from_array(wide, f"out{layer}"),
            numpy_helper.from_array(np.ascontiguousarray(wide.T), f"back{layer}"),
        ]
        nodes += [
            helper.make_node("MatMul", [last, f"out{layer}"], [f"wide{layer}"]),
            helper.make_node("MatMul", [f"wide{layer}", f"back{layer}"], [f"narrow{layer}"]),
        ]
        last = f"narrow{layer}"
    if chain:
        wide = np.eye(PIXELS, 512, dtype=np.float32)
        constants += [
            numpy_helper.from_array(wide, "there"),
            numpy_helper.from_array(np.ascontiguousarray(wide.T), "and_back"),
        ]
    for link in range(chain):
        nodes += [
            helper.make_node("MatMul", [last, "there"], [f"far{link}"]),
            helper.make_node("MatMul", [f"far{link}", "and_back"], [f"near{link}"]),
        ]
        last = f"near{link}"
    if ballast_mib:
        heavy = random.normal(0, 1, (PIXELS, (ballast_mib << 20) // 4 // PIXELS))
        constants += [
            numpy_helper.from_array(heavy.astype(np.float32), "heavy"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        ]
        nodes += [
            helper.make_node("MatMul", [last, "heavy"], ["loaded"]),
            helper.make_node("ReduceSum", ["loaded", "axes"], ["sum"]),
            helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
            helper.make_node("Add", [last, "zero"], ["light"]),
        ]
        last = "light"
    if hangs:
        more, values = loop_on(last, "ReduceMax", HANGS_ABOVE)
        nodes += more
        constants += values
        last = "looped"
    nodes += [
        helper.make_node("MatMul", [last, "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    size = batch if batch is not None else "batch"
    save(
        path,
        nodes,
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [size, PIXELS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [size, CLASSES])],
        constants,
        description,
    )
    said = batch if batch is not None else -1
    variant = variant_of(
        path,
        (TensorSpec(name=input_name, datatype="FP32", shape=(said, PIXELS)),),
        (TensorSpec(name="probabilities", datatype="FP32", shape=(said, CLASSES)),),
        max_batch=max_batch,
        profile=profile,
    )
    return TinyModel(path, variant, weights)


def loop_on(given: str, reduce: str, above: float) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of a Loop from ``given`` to ``looped``, which changes nothing.

    It has no turn, or, if ``reduce`` of the values is above ``above``, it never ends.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node(reduce, [given], ["reduced"], keepdims=0),
        helper.make_node("Greater", ["reduced", "hangs_above"], ["hangs"]),
        helper.make_node("Where", ["hangs", "for_ever", "no_turn"], ["turns"]),
        helper.make_node("Loop", ["turns", "", given], ["looped"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array(above, np.float32), "hangs_above"),
        numpy_helper.from_array(np.array(1 << 62, np.int64), "for_ever"),
        numpy_helper.from_array(np.array(0, np.int64), "no_turn"),
    ]
    return nodes, constants


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: list[Any],
    description: str = "",
) -> None:
    """Write a graph as an ONNX file."""
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
        doc_string=description,
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def variant_of(
    path: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    max_batch: int = 8,
    profile: str = "generic_x86",
) -> Variant:
    """The manifest entry of the file at ``path``."""
    return Variant(
        profile=profile,
        runtime="onnx",
        precision="fp32",
        artifact=artifact_of(path),
        inputs=inputs,
        outputs=outputs,
        max_batch=max_batch,
        memory_limit_mib=512,
    )


def artifact_of(path: Path) -> Artifact:
    data = path.read_bytes()
    return Artifact(sha256=sha256(data).hexdigest(), size_bytes=len(data))


def pixels(count: int, *, seed: int = 7) -> NDArray[np.float32]:
    """Inputs of different classes."""
    return np.random.default_rng(seed).normal(0, 1, (count, PIXELS)).astype(np.float32)


def write_golden(
    path: Path,
    model: TinyModel,
    *,
    cases: int = 40,
    min_accuracy: float = 0.95,
    min_agreement: float = 0.95,
) -> Golden:
    """A golden set with the outputs of ``model`` as labels."""
    given = pixels(cases)
    expected = model.probabilities(given)
    arrays = {
        f"input.{model.variant.inputs[0].name}": given,
        "output.probabilities": expected,
        "label": expected.argmax(axis=1).astype(np.int64),
    }
    np.savez(path, **arrays)
    return Golden(
        artifact=artifact_of(path),
        cases=cases,
        min_accuracy=min_accuracy,
        min_agreement=min_agreement,
    )


def prove_request(model: TinyModel, golden: Golden, golden_path: Path) -> ProveRequest:
    return ProveRequest(
        variant=model.variant,
        golden=golden,
        artifact_path=str(model.path),
        golden_path=str(golden_path),
    )
