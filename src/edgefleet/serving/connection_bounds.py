"""The bounds of connections that both listeners of inference have."""

from dataclasses import replace
from typing import TypeVar

from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http2.limits import ConnectionLimits as StreamLimits
from edgefleet.serving.bounds import Bounds

L = TypeVar("L", ConnectionLimits, StreamLimits)


def within(limits: L, bounds: Bounds) -> L:
    """``limits`` with the settings of connections."""
    return replace(
        limits,
        connections=bounds.connections,
        peer_connections=bounds.of_peer,
        reserved_connections=bounds.reserved_connections,
        head_s=float(bounds.head_s),
        body_s=float(bounds.body_s),
        write_s=float(bounds.write_s),
        idle_s=float(bounds.idle_s),
    )
