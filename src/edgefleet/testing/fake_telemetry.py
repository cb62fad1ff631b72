"""The telemetry of a device, computed from its behaviour."""

import math
from functools import lru_cache
from typing import Final

from edgefleet.protocol.bins import (
    CLASS_BINS,
    CONFIDENCE_BINS,
    LATENCY_BUCKETS,
    upper_edge_us,
)
from edgefleet.protocol.device import Scores, Sketches, Telemetry
from edgefleet.testing.behaviour import Behaviour

_CLASSES: Final = 10
_SLOW: Final = 0.1  # share of requests as slow as the 95th percentile


def telemetry(
    release: str, now: Behaviour, requests: int, *, before: tuple[str, Behaviour]
) -> Telemetry:
    """The figures since the last check-in. ``before`` is the previous release and behaviour."""
    name, was = before
    served = requests - round(requests * now.error_rate)
    return Telemetry(
        release=release,
        requests=requests,
        errors=requests - served,
        confidence_sum=now.confidence * served,
        confidence_count=served,
        latency_us_p50=now.latency_us * 2 // 3,
        latency_us_p95=now.latency_us,
        memory_mib=now.memory_mib,
        sketches=_sketches(now, served),
        cpu_s=requests * now.cpu_us / 1e6,
        costs=Scores(
            from_release=name,
            to_release=release,
            requests=requests,
            memory_growth_delta=now.memory_growth_mib_h - was.memory_growth_mib_h,
        ),
        scores=Scores(
            from_release=name,
            to_release=release,
            requests=requests,
            latency_log_ratio=math.log(now.latency_us / was.latency_us),
            error_rate_delta=now.error_rate - was.error_rate,
            confidence_delta=now.confidence - was.confidence,
            cpu_log_ratio=math.log(now.cpu_us / was.cpu_us),
            class_drift=abs(now.drift - was.drift),
            input_drift=0.0,
            latency_us_p95=now.latency_us,
            error_rate=now.error_rate,
        ),
    )


def _sketches(behaviour: Behaviour, served: int) -> Sketches:
    slow = math.ceil(served * _SLOW)
    usual = _bucket(behaviour.latency_us * 2 // 3)
    late = _bucket(behaviour.latency_us)
    latency = {usual: served - slow}
    latency[late] = latency.get(late, 0) + slow
    confidence = [0] * CONFIDENCE_BINS
    confidence[min(CONFIDENCE_BINS - 1, int(behaviour.confidence * CONFIDENCE_BINS))] = served
    classes = [0] * CLASS_BINS
    classes[:_CLASSES] = [round(served * (1 - behaviour.drift) / _CLASSES)] * _CLASSES
    classes[_CLASSES] = round(served * behaviour.drift)
    return Sketches(latency=latency, confidence=tuple(confidence), classes=tuple(classes))


@lru_cache(maxsize=1024)
def _bucket(latency_us: int) -> int:
    """The bucket of ``protocol.device.Sketches`` that contains ``latency_us`` microseconds."""
    inside = (place for place in range(LATENCY_BUCKETS) if latency_us < upper_edge_us(place))
    return next(inside, LATENCY_BUCKETS - 1)
