"""When the requests of an open loop are due. Pure: the same seed gives the same times."""

import random
from collections.abc import Iterator
from typing import Literal

Spacing = Literal["poisson", "even"]


def due_times(rate: float, spacing: Spacing, seed: int) -> Iterator[float]:
    """Seconds from the start, rising without end, ``rate`` a second on average.

    ``poisson``: independent clients, so that requests come in bursts. ``even``: one interval.
    """
    if spacing == "even":
        number = 0
        while True:
            yield number / rate
            number += 1
    source = random.Random(seed)  # noqa: S311 - load, not secrets
    at = 0.0
    while True:
        at += source.expovariate(rate)
        yield at
