"""The top classes of an output, as the classification extension and TensorFlow Serving say them."""

from collections.abc import Sequence

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.serving.bf16 import numbers
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tensors import not_finite


def check_classes(name: str, k: object, datatype: str) -> int:
    """``k``, the number of classes. Raises OperatorError ``bad_request``."""
    if type(k) is not int or k < 1:
        raise OperatorError(
            "bad_request", "classification must be a number of classes, from 1.", field=name
        )
    if datatype in ("BYTES", "BOOL"):
        raise OperatorError(
            "bad_request", f"classification needs numbers; the output is {datatype}.", field=name
        )
    return k


def classified(name: str, scores: Tensor, k: int, names: Sequence[str] = ()) -> Tensor:
    """The ``k`` largest values of each item, as texts ``value:index:name``, in order.

    ``names`` are those of the classes. A class without a name is ``value:index``.

    The first of several sizes is the batch. Equal values are in the order of their classes. Raises
    DeviceError ``inference_failed`` for scores that are not numbers.
    """
    scores = numbers(scores)
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise not_finite(name)
    batch = scores.shape[:1] if scores.ndim > 1 else ()
    items = scores.reshape(*(batch or (1,)), -1)
    count = min(k, items.shape[-1])
    # The order of the mirrored row, read backwards, is stable and needs no negative of a number.
    mirrored = items[:, ::-1].argsort(axis=1, kind="stable")[:, ::-1][:, :count]
    tops = items.shape[-1] - 1 - mirrored
    form = "{:f}:{}" if scores.dtype.kind == "f" else "{}:{}"
    texts = [
        form.format(float(row[at]) if scores.dtype.kind == "f" else row[at], at)
        + (f":{names[at]}" if at < len(names) else "")
        for row, places in zip(items, tops, strict=True)
        for at in places.tolist()
    ]
    return np.array(texts, dtype=object).reshape(*batch, count)
