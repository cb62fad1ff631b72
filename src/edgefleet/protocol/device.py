"""What a device and the hub say to each other. The device asks, the hub answers."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgefleet.base.limits import NAME_CHARS
from edgefleet.protocol.wire import Wire

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]  # what a float holds exactly
Token = Annotated[str, Meta(pattern=r"^[!-~]{1,512}\Z")]  # what a header can carry


Share = Annotated[float, Meta(ge=0, le=1)]


class Facts(Wire, frozen=True, kw_only=True):
    """What a device is. Sent at enrolment, and again when it changed or the hub asks."""

    profile: Name
    agent_version: Annotated[str, Meta(max_length=32)]
    runtimes: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=8)] = ()
    arch: Annotated[str, Meta(max_length=32)] = ""
    memory_mib: Count = 0


class EnrolRequest(Wire, frozen=True, kw_only=True):
    """A device that holds a one-use claim asks for a credential."""

    protocol: int
    claim: Annotated[str, Meta(max_length=200)]
    name: Name
    facts: Facts
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class EnrolAnswer(Wire, frozen=True, kw_only=True):
    """``token`` goes with every later request, as ``Authorization: Bearer``."""

    device: str
    token: Token
    checkin_url: str
    interval_s: float


class Endpoints(Wire, frozen=True, kw_only=True):
    """Where this hub takes check-ins now (``GET /device/v1/endpoints``)."""

    checkin_url: str


class OutcomeKind(StrEnum):
    """What became of an attempt, in the order in which it can happen."""

    REFUSED = "refused"  # the device would not activate it; it still serves what it had
    TRIAL_STARTED = "trial_started"  # asked before the switch; acknowledged: it may start
    CONFIRMED = "confirmed"
    TRIAL_FAILED = "trial_failed"  # and the device went back by itself
    REVERTED = "reverted"  # the hub took it back, or offered the previous release
    DEFERRED = "deferred"  # not now: disk full, closed window, the owner's word
    WITHDRAWN = "withdrawn"  # gave a start up before the switch: nothing of it ever ran
    OFFERED = "offered"  # the hub's own: granted with its offer; of no account from a device


class Outcome(Wire, frozen=True, kw_only=True):
    """One durable report. ``id`` makes it count once, however often it is sent."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    rollout: Annotated[str, Meta(max_length=64)]
    release: Name
    kind: OutcomeKind
    at: float
    reason: Annotated[str, Meta(max_length=64)] = ""  # a stable code, see ``Reason``
    detail: Annotated[str, Meta(max_length=500)] = ""
    accuracy: Share | None = None  # on the golden set, with a confirmation
    accuracy_before: Share | None = None  # of the release before it, where the set is the same
    attempt: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] = 0  # rises; tells starts apart


class Reason(StrEnum):
    """Why an attempt ended badly: stable codes, shown wherever failures are counted."""

    SIGNATURE = "signature_invalid"
    DIGEST = "digest_mismatch"
    NO_VARIANT = "no_variant"
    TOO_LARGE = "does_not_fit"
    GOLDEN = "golden_failed"
    LOAD = "load_failed"
    CRASH = "serving_crashed"
    ERRORS = "inference_errors"
    CONFIDENCE = "confidence_drop"
    INTERRUPTED = "trial_interrupted"  # power or process lost during the trial, once too often
    DISK_FULL = "disk_full"
    RECALLED = "recalled"  # the hub offered the previous release


class Sketches(Wire, frozen=True, kw_only=True):
    """Histograms of requests that were served. Those of many devices add up, bin by bin.

    ``latency`` has buckets of an eighth of an octave of microseconds: an index below 16 is the
    duration, 8 * octave + mantissa above. ``confidence`` has equal bins from 0 to 1, ``classes``
    the top class modulo 32, ``inputs`` quarter octaves of an input's mean modulo 16.
    """

    latency: Annotated[dict[Annotated[int, Meta(ge=0, le=215)], Count], Meta(max_length=64)] = (
        msgspec.field(default_factory=dict)
    )
    confidence: Annotated[tuple[Count, ...], Meta(max_length=16)] = ()
    classes: Annotated[tuple[Count, ...], Meta(max_length=32)] = ()
    inputs: Annotated[tuple[Count, ...], Meta(max_length=16)] = ()


class Scores(Wire, frozen=True, kw_only=True):
    """A device's last full window of requests against the one before it.

    The two may be of two releases, or of one. None: not known on this device.
    """

    from_release: Name
    to_release: Name
    requests: Count  # in the smaller window
    latency_log_ratio: Annotated[float, Meta(ge=-20, le=20)] | None = None  # of the p95
    error_rate_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None
    confidence_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None
    class_drift: Share | None = None  # total variation of the two histograms
    input_drift: Share | None = None


class Telemetry(Wire, frozen=True, kw_only=True):
    """Serving figures of one release since the last acknowledged check-in.

    Agents that are too old for them leave ``sketches`` and ``scores`` out.
    """

    release: Name
    requests: Count
    errors: Count
    confidence_sum: Annotated[float, Meta(ge=0)]  # of the top score, over ``confidence_count``
    confidence_count: Count
    latency_us_p50: Count
    latency_us_p95: Count
    memory_mib: Count
    sketches: Sketches | None = None
    scores: Scores | None = None


class Phase(StrEnum):
    """Where the agent stands."""

    IDLE = "idle"
    FETCHING = "fetching"
    PROVING = "proving"
    STAGED = "staged"  # all is there and proved; it asks for leave to start
    TRIAL = "trial"
    REVERTING = "reverting"


class CheckIn(Wire, frozen=True, kw_only=True):
    """A device's report. ``seq`` rises with every one sent, so a replayed one is refused."""

    protocol: int
    seq: Annotated[int, Meta(ge=1)]
    phase: Phase = Phase.IDLE
    model: Name | None = None
    release: Name | None = None  # the one it serves, on trial or confirmed
    outcomes: Annotated[tuple[Outcome, ...], Meta(max_length=16)] = ()
    telemetry: Telemetry | None = None
    facts: Facts | None = None


class Offer(Wire, frozen=True, kw_only=True):
    """What the device should run, when that is not what it said it runs."""

    rollout: Annotated[str, Meta(max_length=64)]  # as in an outcome: the device reports on it
    action: Literal["install", "revert"]
    model: Name
    release: Name
    manifest_sha256: Digest
    confirm_after_s: Annotated[float, Meta(ge=0)]  # healthy time in trial before it confirms
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 2


class CheckInAnswer(Wire, frozen=True, kw_only=True):
    """``acked`` outcomes are durable at the hub: the device may forget them.

    A start that is not among them was not admitted yet: the device waits, and asks again.
    """

    interval_s: float
    acked: tuple[str, ...] = ()
    offer: Offer | None = None
    want_facts: bool = False
