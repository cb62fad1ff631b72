"""The bins of ``protocol.device.Sketches``: both ends of the wire count into the same ones."""

from typing import Final

LATENCY_BUCKETS: Final = 216  # up to 9 minutes
CONFIDENCE_BINS: Final = 16
CLASS_BINS: Final = 32
INPUT_BINS: Final = 16

_STEPS: Final = 8  # buckets an octave: a quantile is off by at most an eighth


def bucket(us: int) -> int:
    """The bucket of a duration: its highest four bits."""
    if us < _STEPS:
        return max(us, 0)
    octave = us.bit_length() - 4
    return min(_STEPS * octave + (us >> octave), LATENCY_BUCKETS - 1)


def upper_edge_us(index: int) -> int:
    """The first duration beyond bucket ``index``."""
    index += 1
    if index < 2 * _STEPS:
        return index
    octave = index // _STEPS - 1
    return (index % _STEPS + _STEPS) << octave
