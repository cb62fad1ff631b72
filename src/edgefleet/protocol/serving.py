"""Messages between the agent and the serving process on one device.

HTTP on a Unix socket in the agent's data folder, which other users cannot open:
``GET /control/status`` -> ServingStatus, ``POST /control/activate`` Activate -> ServingStatus.
Before activation a separate process (``python -m edgefleet.serving.prove``) proves the candidate:
it reads ProveRequest as JSON on standard input and prints ProveResult as its last line.
"""

from typing import Literal

from edgefleet.protocol.device import Sketches
from edgefleet.protocol.release import Golden, Quality, Variant
from edgefleet.protocol.wire import Wire


class Activate(Wire, frozen=True, kw_only=True):
    """Loads a release, warms it up and swaps it in without dropping a request."""

    model: str
    release: str
    variant: Variant
    quality: Quality
    artifact_path: str


class LiveStats(Wire, frozen=True, kw_only=True):
    """Counters since this release was activated in this process."""

    requests: int = 0
    errors: int = 0
    refused: int = 0  # before the model ran: wrong shape, wrong name, queue full
    confidence_sum: float = 0.0
    confidence_count: int = 0
    latency_us_p50: int = 0
    latency_us_p95: int = 0
    in_flight: int = 0
    memory_mib: int = 0
    sketches: Sketches = Sketches()


class ServingStatus(Wire, frozen=True, kw_only=True):
    """``ready`` is true if the process answers inference requests now."""

    pid: int
    ready: bool
    model: str | None = None
    release: str | None = None
    artifact_sha256: str | None = None
    url: str = ""  # where inference is served, http://host:port
    stats: LiveStats = LiveStats()


class ProveRequest(Wire, frozen=True, kw_only=True):
    """Runs the golden set on a candidate, with the runtime and options of serving."""

    variant: Variant
    golden: Golden
    artifact_path: str
    golden_path: str


class ProveResult(Wire, frozen=True, kw_only=True):
    """``reason`` is a ``Reason`` of protocol.device if ``passed`` is false."""

    passed: bool
    reason: Literal["", "golden_failed", "load_failed"] = ""
    detail: str = ""
    accuracy: float = 0.0
    agreement: float = 0.0
    cases: int = 0
    latency_us_p50: int = 0
    load_ms: float = 0.0
