"""Weights as the few values that signed integers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgefleet.optimize.recipe import StaticInt8
from edgefleet.optimize.samples import Array

if TYPE_CHECKING:
    from onnx import NodeProto


def levels_of(step: StaticInt8) -> int:
    """The greatest integer of a weight, as ONNX Runtime quantises it: 127, or 64 in 7 bits."""
    return 127 if step.weight_bits == 8 else 64


def on_grid(weight: Array, axis: int | None, levels: int) -> Array:
    """The weight as integers from -levels to levels hold it, one scale for each index of ``axis``.

    None as the axis: one scale for the whole weight.
    """
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    top = np.max(np.abs(weight), axis=others, keepdims=True)
    scale = np.where(top == 0, 1, top / levels)
    made: Array = (np.round(weight / scale) * scale).astype(weight.dtype)
    return made


def channel_axis(node: NodeProto, axes: int) -> int:
    """The axis of the output channels of a weight with so many axes."""
    if node.op_type == "MatMul":
        return axes - 1
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return 1 if node.op_type == "ConvTranspose" else 0
