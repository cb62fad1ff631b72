"""Whether the answers of a model to several requests at a time are those to each one alone.

Most models compute each row of a batch by itself. A dynamically quantised one scales the whole
batch, so that an answer would depend on the inputs of other clients. Which kind a model is shows in
real requests, which are run both ways until PROOFS comparisons agree.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from edgefleet.protocol.release import Variant
from edgefleet.serving.runtime import Tensor

PROOFS: Final = 8
_RTOL: Final = 1e-4  # of the largest value: sums of floats depend on their order
BATCHED_BYTES: Final = 16 << 10  # of one request: copies of more cost what a batch saves


class RowWise:
    """The evidence on whether the model of a release is row-wise.

    ``possible`` is False if the manifest has no free batch, or once an answer differed. The model
    is not known to be row-wise before ``proven``.
    """

    def __init__(self, variant: Variant) -> None:
        self.max_batch = variant.max_batch
        self.possible = variant.max_batch > 1 and all(
            spec.shape[:1] == (-1,) and -1 not in spec.shape[1:] and spec.datatype != "BYTES"
            for spec in (*variant.inputs, *variant.outputs)
        )
        self._agreed = 0

    @property
    def proven(self) -> bool:
        return self._agreed >= PROOFS

    def compare(
        self,
        inputs: Sequence[Mapping[str, Tensor]],
        alone: Sequence[Sequence[Tensor]],
        together: Sequence[Tensor],
    ) -> None:
        """Learn from the outputs of some requests, ``alone`` and ``together``.

        Equal inputs prove nothing: a scale of the batch is then that of each request.
        """
        for number, whole in enumerate(together):
            if not _same([outputs[number] for outputs in alone], whole):
                self.possible = False
                return
        first = inputs[0]
        if any(not _equal(first, other) for other in inputs[1:]):
            self._agreed += 1


def stacked(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The inputs of several requests, one after the other."""
    return {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def _same(alone: Iterable[Tensor], together: Tensor) -> bool:
    parts = np.concatenate(list(alone))
    if parts.shape != together.shape:
        return False
    if parts.dtype.kind != "f":
        return bool((parts == together).all())
    finite = np.isfinite(parts)
    if not np.array_equal(finite, np.isfinite(together)):
        return False
    far = np.abs(parts[finite].astype(np.float64) - together[finite])
    scale = np.abs(parts[finite]).max(initial=0.0)
    return bool(far.max(initial=0.0) <= _RTOL * float(scale))
