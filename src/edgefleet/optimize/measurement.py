"""Measurements of one candidate, as the artifact that will ship, in its own runtime."""

from typing import Final

from edgefleet.optimize.recipe import Recipe
from edgefleet.protocol.device import Digest
from edgefleet.protocol.wire import Wire

SPREAD: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The shares of ``Latency.spread_s``."""


class Latency(Wire, frozen=True, kw_only=True):
    """Seconds of a run at the profile's batch, over ``runs`` interleaved with other candidates.

    ``spread_s`` are the quantiles at ``SPREAD``. Empty for measurements of before.
    """

    p50_s: float
    p10_s: float
    runs: int
    spread_s: tuple[float, ...] = ()


class Resampled(Wire, frozen=True, kw_only=True):
    """The values of a metric on resamples of the evaluation data, the same for all candidates."""

    values: tuple[float, ...]
    cases: int  # of the evaluation data


class Measurement(Wire, frozen=True, kw_only=True):
    """The facts of one candidate. Sizes in bytes.

    ``value`` is the metric over all evaluation cases; larger is better. ``cases`` are the scores of
    single cases, in the order of the evaluation data, where ``value`` is their mean (0 or 1 for
    right and wrong). Where only the whole set has a value (mAP, IoU, F1), ``resampled`` has those
    of resamples, as ``metrics.evaluate`` makes them. ``outputs_digest`` is that of all outputs.
    """

    recipe: Recipe
    sha256: Digest
    size_bytes: int
    compressed_bytes: int  # zlib, as a transfer
    delta_bytes: int | None  # against the artifact that devices have. None: there is none
    value: float
    cases: tuple[float, ...]
    latency: Latency
    peak_memory_bytes: int  # of the process that ran it, beyond one that loaded no model
    batch: int
    outputs_digest: Digest
    resampled: Resampled | None = None


class Budget(Wire, frozen=True, kw_only=True):
    """The most that a variant may cost on its profile. None: no limit.

    Without ``judges_speed`` latencies decide nothing: they were measured on other hardware than
    that of the profile.
    """

    keep: float = 0.99  # least share of the baseline's metric
    memory_bytes: int | None = None
    latency_s: float | None = None
    size_bytes: int | None = None
    judges_speed: bool = True
