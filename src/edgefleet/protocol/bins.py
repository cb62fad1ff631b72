"""The histogram bins of ``protocol.device.Sketches``, shared by agent and hub."""

from functools import lru_cache
from typing import Final

LATENCY_BUCKETS: Final = 216  # the last bucket begins at 8.4 minutes
CONFIDENCE_BINS: Final = 16
CLASS_BINS: Final = 32
INPUT_BINS: Final = 16

_STEPS: Final = 8  # buckets per octave: the relative error of a quantile is at most 1/8


@lru_cache(maxsize=1024)
def bucket(us: int) -> int:
    """The bucket of a duration in microseconds, from its highest four bits."""
    if us < _STEPS:
        return max(us, 0)
    octave = us.bit_length() - 4
    return min(_STEPS * octave + (us >> octave), LATENCY_BUCKETS - 1)


def upper_edge_us(index: int) -> int:
    """The exclusive upper edge of bucket ``index``, in microseconds."""
    index += 1
    if index < 2 * _STEPS:
        return index
    octave = index // _STEPS - 1
    return (index % _STEPS + _STEPS) << octave


def lower_edge_us(index: int) -> int:
    """The inclusive lower edge of bucket ``index``, in microseconds."""
    return upper_edge_us(index - 1) if index > 0 else 0
