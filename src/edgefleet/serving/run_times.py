"""Which runs of a model are fast, learnt from its runs: the event loop may wait for those."""

from collections.abc import Mapping
from typing import Final

from edgefleet.serving.limits import INLINE_US, LEARN_RUNS, TICK_US
from edgefleet.serving.runtime import Tensor

_WEIGHT: Final = 0.25  # of the newest run in the mean


class RunTimes:
    """The CPU time of runs by the size of their inputs, in powers of two of bytes.

    A size is fast after LEARN_RUNS runs with a mean under INLINE_US, and no longer once the mean
    rises above it. CPU time, as the time on the clock depends on the other programs of the device.
    ``short`` are the sizes that are so fast that the call of a run costs more than the run.
    """

    def __init__(self) -> None:
        self._means: dict[int, tuple[int, float]] = {}
        self._fast: set[int] = set()
        self.short: set[int] = set()

    def is_fast(self, size: int) -> bool:
        """Whether runs of this ``size_class`` are known to be fast."""
        return size in self._fast

    def ran(self, size: int, us: float) -> None:
        """Count a run of this ``size_class`` that took ``us`` microseconds of CPU."""
        runs, mean = self._means.get(size, (0, us))
        mean += _WEIGHT * (us - mean)
        self._means[size] = runs + 1, mean
        if mean >= INLINE_US:
            self._fast.discard(size)
        elif runs + 1 >= LEARN_RUNS:
            self._fast.add(size)
        if size in self._fast and mean < TICK_US:
            self.short.add(size)
        else:
            self.short.discard(size)

    def learnt(self) -> tuple[tuple[int, float], ...]:
        """All means by size class: what another RunTimes needs to know the same."""
        return tuple((size, mean) for size, (_, mean) in self._means.items())

    def learn(self, means: tuple[tuple[int, float], ...]) -> None:
        """Take over what another RunTimes has learnt."""
        for size, mean in means:
            for _ in range(LEARN_RUNS):
                self.ran(size, mean)


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """The size of all these tensors. Its bit length is their size class."""
    total = 0
    for tensor in tensors.values():
        total += tensor.nbytes
    return total


def size_class(inputs: Mapping[str, Tensor]) -> int:
    """The power of two of the bytes of all inputs."""
    return bytes_of(inputs).bit_length()
