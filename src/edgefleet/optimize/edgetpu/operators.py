"""The operators of the Edge TPU and their limits.

The table is that of "TensorFlow models on the Edge TPU", section "Supported operations",
https://coral.ai/docs/edgetpu/models-intro/#supported-operations, for version 14 of the runtime
(compiler 16), with the names of the TFLite schema. The section "Model requirements" of that page
has the rules for all operators: 8-bit integers, sizes that are known when the model is compiled,
and at most the three inner dimensions larger than 1.

How it was checked: Axis prints the current table for its cameras with an Edge TPU
(https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/supported-ops/), which
was read from ADD to RESIZE_BILINEAR. SLICE to STRIDED_SLICE were compared with a copy of Coral's
table of an earlier runtime. Not compared, as no copy was found: RSQRT, SQUARED_DIFFERENCE, SUM,
TRANSPOSE, TRANSPOSE_CONV, and that SPLIT does not split the batch.

Only limits that the file itself shows are checked. The page has more that depend on sizes (a large
RESHAPE or a RESIZE may stay on the CPU), so a model that passes here can still map less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, Final

from edgefleet.optimize.samples import Array

_SOFTMAX_ELEMENTS: Final = 16_000
_INNER: Final = 3


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A tensor of the file. ``datatype`` is a name of the schema, such as INT8.

    ``value`` are the elements of a constant. None: it is computed when the model runs.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    has_open_size: bool
    value: Array | None


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """An operator of the file, with the options that the schema has for its type."""

    kind: str
    inputs: tuple[TensorFacts | None, ...]
    outputs: tuple[TensorFacts, ...]
    options: Any

    def option(self, name: str, default: int) -> int:
        return int(getattr(self.options, name, default))

    def constant(self, place: int) -> Array | None:
        """The elements of a constant input. None if it is missing or computed."""
        found = self.inputs[place] if place < len(self.inputs) else None
        return None if found is None else found.value


Limit = Callable[[OperatorFacts], str]
"""Why the Edge TPU does not run the operator. Empty: it does."""


def _anything(operator: OperatorFacts) -> str:
    del operator
    return ""


def _no_activation(operator: OperatorFacts) -> str:
    fused = operator.option("fusedActivationFunction", 0)
    return "it has a fused activation function" if fused else ""


def _concatenation(operator: OperatorFacts) -> str:
    """A constant input must be zeros, next to one other. Zeros are one integer, the zero point."""
    if reason := _no_activation(operator):
        return reason
    constants = [one.value for one in operator.inputs if one is not None and one.value is not None]
    if not constants:
        return ""
    if len(operator.inputs) != 2:
        return f"it has a constant among {len(operator.inputs)} inputs; with one there may be 2"
    equal = all((value == value.ravel()[0]).all() for value in constants)
    return "" if equal else "it has a constant input that is not zeros"


def _same_dilation(operator: OperatorFacts) -> str:
    wide, high = operator.option("dilationWFactor", 1), operator.option("dilationHFactor", 1)
    return "" if wide == high else f"its dilation is {wide} in x and {high} in y"


def _not_batch(place: int) -> Limit:
    """The axis of input ``place`` must be a constant, and none of it the batch."""

    def limit(operator: OperatorFacts) -> str:
        axis, source = operator.constant(place), _data(operator)
        if axis is None or source is None:
            return "its axis is not a constant"
        rank = len(source.shape)
        return "it works on the batch" if 0 in {int(one) % rank for one in axis.ravel()} else ""

    return limit


def _mean(operator: OperatorFacts) -> str:
    if reason := _not_batch(1)(operator):
        return reason
    axis, source = operator.constant(1), _data(operator)
    if axis is None or source is None:
        return ""
    rank = len(source.shape)
    depth = rank - 1 in {int(one) % rank for one in axis.ravel()}
    return "it reduces a depth that is no multiple of 4" if depth and source.shape[-1] % 4 else ""


def _padding(operator: OperatorFacts) -> str:
    pads = operator.constant(1)
    if pads is None:
        return "its padding is not a constant"
    return "it pads the batch" if pads.reshape(-1, 2)[0].any() and pads.size == 8 else ""


def _split(operator: OperatorFacts) -> str:
    axis, source = operator.constant(0), operator.inputs[1] if len(operator.inputs) > 1 else None
    if axis is None or source is None:
        return "its axis is not a constant"
    return "" if int(axis.ravel()[0]) % len(source.shape) else "it splits the batch"


def _squeeze(operator: OperatorFacts) -> str:
    """Only leading dimensions go: after [1, 5, 10] the data lies as before, [5, 1, 10] moves."""
    source = _data(operator)
    if source is None:
        return ""
    named = getattr(operator.options, "squeezeDims", None)
    rank = len(source.shape)
    gone = (
        [place for place, size in enumerate(source.shape) if size == 1]
        if named is None or not len(named)
        else [int(one) % rank for one in named]
    )
    first = next((place for place, size in enumerate(source.shape) if size > 1), rank)
    inner = [place for place in gone if place > first]
    return (
        f"it removes dimension {inner[0]} of {list(source.shape)}, not a leading one"
        if inner
        else ""
    )


def _pack(operator: OperatorFacts) -> str:
    return "" if operator.option("axis", 0) else "it packs the batch"


def _softmax(operator: OperatorFacts) -> str:
    source = _data(operator)
    if source is None:
        return ""
    if prod(source.shape[:-1]) != 1:
        return f"its input {list(source.shape)} has more than one dimension"
    size = source.shape[-1] if source.shape else 1
    return (
        f"its input has {size:,} elements; {_SOFTMAX_ELEMENTS:,} are the most"
        if size > _SOFTMAX_ELEMENTS
        else ""
    )


def _strided_slice(operator: OperatorFacts) -> str:
    strides = operator.constant(3)
    if strides is None or (strides != 1).any():
        return "not all of its strides are 1"
    if operator.option("ellipsisMask", 0) or operator.option("newAxisMask", 0):
        return "it has an ellipsis or a new axis"
    return ""


def _prelu(operator: OperatorFacts) -> str:
    alpha = operator.inputs[1] if len(operator.inputs) > 1 else None
    one = alpha is not None and prod(alpha.shape[:-1]) == 1
    return "" if one else "its alpha has more than one dimension"


def _dense(operator: OperatorFacts) -> str:
    if operator.option("weightsFormat", 0):
        return "its weights are not in the default format"
    if any(prod(one.shape[:-1]) != 1 for one in operator.outputs):
        return f"its output {list(operator.outputs[0].shape)} has more than one dimension"
    return "" if operator.constant(1) is not None else "its weights are not a constant"


def _convolution(operator: OperatorFacts) -> str:
    return (
        _same_dilation(operator)
        if operator.constant(1) is not None
        else "its weights are not a constant"
    )


OPERATORS: Final[Mapping[str, Limit]] = MappingProxyType(
    {
        "ADD": _anything,
        "AVERAGE_POOL_2D": _no_activation,
        "CONCATENATION": _concatenation,
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _convolution,
        "EXPAND_DIMS": _anything,
        "FULLY_CONNECTED": _dense,
        "L2_NORMALIZATION": _anything,
        "LOGISTIC": _anything,
        "UNIDIRECTIONAL_SEQUENCE_LSTM": _anything,
        "MAXIMUM": _anything,
        "MAX_POOL_2D": _no_activation,
        "MEAN": _mean,
        "MINIMUM": _anything,
        "MUL": _anything,
        "PACK": _pack,
        "PAD": _padding,
        "PRELU": _prelu,
        "QUANTIZE": _anything,
        "REDUCE_MAX": _not_batch(1),
        "REDUCE_MIN": _not_batch(1),
        "RELU": _anything,
        "RELU6": _anything,
        "RELU_N1_TO_1": _anything,
        "RESHAPE": _anything,
        "RESIZE_BILINEAR": _anything,
        "RESIZE_NEAREST_NEIGHBOR": _anything,
        "RSQRT": _anything,
        "SLICE": _anything,
        "SOFTMAX": _softmax,
        "SPACE_TO_DEPTH": _anything,
        "SPLIT": _split,
        "SQUARED_DIFFERENCE": _anything,
        "SQUEEZE": _squeeze,
        "STRIDED_SLICE": _strided_slice,
        "SUB": _anything,
        "SUM": _not_batch(1),
        "TANH": _anything,
        "TRANSPOSE": _anything,
        "TRANSPOSE_CONV": _anything,
    }
)


def why_not(operator: OperatorFacts) -> str:
    """Why the Edge TPU does not run the operator. Empty: by the table it does."""
    limit = OPERATORS.get(operator.kind)
    if limit is None:
        return "the Edge TPU has no such operator"
    computed = [one for one in operator.inputs if one is not None and one.value is None]
    for tensor in (*computed, *operator.outputs):
        if tensor.datatype not in ("INT8", "UINT8"):
            return f"tensor {tensor.name!r} is {tensor.datatype}, not an 8-bit integer"
        if tensor.has_open_size:
            return f"tensor {tensor.name!r} has a size that is open, such as the batch"
        if any(size > 1 for size in tensor.shape[:-_INNER]):
            return f"tensor {tensor.name!r} {list(tensor.shape)} has an outer dimension above 1"
    return limit(operator)


def _data(operator: OperatorFacts) -> TensorFacts | None:
    return operator.inputs[0] if operator.inputs else None
