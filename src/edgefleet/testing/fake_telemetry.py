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
from edgefleet.protocol.device import Refusal, Scores, Sketches, Telemetry
from edgefleet.testing.behaviour import Behaviour

_CLASSES: Final = 10
_SLOW: Final = 0.1  # share of requests as slow as the 95th percentile


def telemetry(
    release: str, now: Behaviour, requests: int, *, before: tuple[str, Behaviour]
) -> Telemetry:
    """The figures since the last check-in. ``before`` is the previous release and behaviour.

    ``requests`` clients asked; of these, the refused ones did not reach the release.
    """
    name, was = before
    refused = round(requests * now.refusal_rate)
    asked, requests = requests, requests - refused
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
            latency_log_ratio=math.log(now.latency_us / was.latency_us) if requests else None,
            error_rate_delta=now.error_rate - was.error_rate if requests else None,
            confidence_delta=now.confidence - was.confidence if requests else None,
            cpu_log_ratio=math.log(now.cpu_us / was.cpu_us) if requests else None,
            class_drift=abs(now.drift - was.drift) if requests else None,
            input_drift=0.0 if requests else None,
            request_rate_change=_change(was, now),
            latency_us_p95=now.latency_us,
            error_rate=now.error_rate,
            refusal_rate_delta=now.refusal_rate - was.refusal_rate,
            refusal_rate=now.refusal_rate,
            asked=asked,
        ),
        refused=refused,
        refusals={Refusal.SHAPE: refused} if refused else {},
    )


def _change(was: Behaviour, now: Behaviour) -> float | None:
    """The change of the rate of answered requests, as a share of the larger one."""
    old, new = (one.traffic * (1 - one.refusal_rate) for one in (was, now))
    return (new - old) / max(new, old) if max(new, old) else None


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
