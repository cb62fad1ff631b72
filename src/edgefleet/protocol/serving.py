"""What the agent and the serving process on the same device say to each other.

HTTP on a Unix socket in the agent's data folder, so nothing else can reach it:
``GET /control/status`` -> ServingStatus, ``POST /control/activate`` Activate -> ServingStatus.
The candidate is proved before that in a process of its own (``python -m edgefleet.serving.prove``):
it reads ProveRequest as JSON on standard input and prints ProveResult as its last line.
"""

from typing import Literal

from edgefleet.protocol.device import Sketches
from edgefleet.protocol.release import Golden, Quality, Variant
from edgefleet.protocol.wire import Wire


class Activate(Wire, frozen=True, kw_only=True):
    """Load this, warm it up, and swap it in without dropping a request."""

    model: str
    release: str
    variant: Variant
    quality: Quality
    artifact_path: str


class LiveStats(Wire, frozen=True, kw_only=True):
    """Counters since this release was activated in this process."""

    requests: int = 0
    errors: int = 0
    refused: int = 0  # requests turned away before the model: wrong shape, wrong name, queue full
    confidence_sum: float = 0.0
    confidence_count: int = 0
    latency_us_p50: int = 0
    latency_us_p95: int = 0
    in_flight: int = 0
    memory_mib: int = 0
    sketches: Sketches = Sketches()


class ServingStatus(Wire, frozen=True, kw_only=True):
    """``ready`` says that inference requests are answered now."""

    pid: int
    ready: bool
    model: str | None = None
    release: str | None = None
    artifact_sha256: str | None = None
    url: str = ""  # where inference is served, http://host:port
    stats: LiveStats = LiveStats()


class ProveRequest(Wire, frozen=True, kw_only=True):
    """Run the golden set on a candidate, in the runtime and with the options it will serve with."""

    variant: Variant
    golden: Golden
    artifact_path: str
    golden_path: str


class ProveResult(Wire, frozen=True, kw_only=True):
    """``reason`` is a ``Reason`` of protocol.device when it is not passed."""

    passed: bool
    reason: Literal["", "golden_failed", "load_failed"] = ""
    detail: str = ""
    accuracy: float = 0.0
    agreement: float = 0.0
    cases: int = 0
    latency_us_p50: int = 0
    load_ms: float = 0.0
