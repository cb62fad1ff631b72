"""Messages between a device and the hub: the device sends requests, the hub answers."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Literal
from zlib import crc32

import msgspec
from msgspec import Meta

from edgefleet.base.limits import (
    COMPARISON_CHARS,
    COMPARISONS,
    LABEL_VALUE_CHARS,
    LABELS_PER_DEVICE,
    MODELS_PER_DEVICE,
    NAME_CHARS,
)
from edgefleet.protocol.labels import LABELS_PER_ANSWER, LabelReport, ModelTruth
from edgefleet.protocol.serving_health import ServingHealth
from edgefleet.protocol.shadow import Shadow
from edgefleet.protocol.version import OLDEST, PROTOCOL
from edgefleet.protocol.wire import Wire

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]  # exact as a float
Token = Annotated[str, Meta(pattern=r"^[!-~]{1,512}\Z")]  # valid in a header


Share = Annotated[float, Meta(ge=0, le=1)]


class Refusal(StrEnum):
    """Why a request was refused before the model ran: stable codes."""

    UNKNOWN_INPUT = "unknown_input"
    MISSING_INPUT = "missing_input"
    UNKNOWN_OUTPUT = "unknown_output"
    SHAPE = "shape"
    DATATYPE = "datatype"
    VERSION = "version"  # the request names a release that is not active
    MALFORMED = "malformed"  # the body has no such tensors
    QUEUE_FULL = "queue_full"
    TIMEOUT = "timeout"


REFUSAL_CHARS: Final = 200
Refusals = Annotated[dict[Annotated[str, Meta(max_length=32)], Count], Meta(max_length=16)]
"""Refused requests by ``Refusal``, or by a code of a newer agent."""


class IsolationReason(StrEnum):
    """Why a confirmed release runs in a process of its own: stable codes."""

    CRASHED_TWICE = "crashed_twice"  # it ran alone at two crashes of the shared process
    RAN_IN_CRASH = "ran_in_crash"  # it and other models ran at a crash of the shared process
    HUNG = "hung"  # a request to it did not end, and held up the shared process


_ISOLATED: Final[dict[str, str]] = {
    IsolationReason.CRASHED_TWICE: "it crashed the shared serving process twice within an hour",
    IsolationReason.RAN_IN_CRASH: "it and other models ran when the shared serving process "
    "crashed, and which of them caused the crash is not known",
    IsolationReason.HUNG: "a request to it did not end in the shared serving process",
}


def isolation_text(reason: str) -> str:
    """The reason in words. Empty for an empty reason."""
    why = _ISOLATED.get(reason, f"the agent says {reason}")
    return f"It runs in a process of its own, because {why}." if reason else ""


class Isolation(Wire, frozen=True, kw_only=True):
    """A model that the device moved out of the shared serving process.

    ``reason`` is an ``IsolationReason``, or one of a newer agent.
    """

    model: Name
    reason: Annotated[str, Meta(max_length=64)]


_LabelPart = Annotated[str, Meta(max_length=2 * NAME_CHARS + LABEL_VALUE_CHARS)]
OwnLabels = Annotated[tuple[tuple[_LabelPart, _LabelPart], ...], Meta(max_length=LABELS_PER_DEVICE)]


class RuntimeVersion(Wire, frozen=True, kw_only=True):
    """The installed version of a runtime."""

    runtime: Annotated[str, Meta(max_length=32)]
    version: Annotated[str, Meta(max_length=32)]


class Facts(Wire, frozen=True, kw_only=True):
    """Properties of a device. Sent at enrolment, after a change, and when the hub asks for them.

    ``isolated`` are the models with a process of their own, by name. ``comparisons`` are the
    comparisons of a golden set besides the one of every agent, see ``release.comparison_name``.
    ``takes_labels`` is False from an agent that gives no labels to the serving process. ``labels``
    are all labels that the device gives itself, sorted. None: it keeps those that it reported last.
    ``disk_fault`` is the code of the error with which the device's last write ended, such as
    ``disk_readonly``, see base.errors. Empty if it can write. ``datatypes`` are those that the
    agent knows in a manifest. Empty from an agent that knows no more than FIRST_DATATYPES.
    """

    profile: Name
    agent_version: Annotated[str, Meta(max_length=32)]
    runtimes: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=8)] = ()
    arch: Annotated[str, Meta(max_length=32)] = ""
    memory_mib: Count = 0  # of the machine
    models_memory_mib: Count = 0  # for all models together. 0: not limited
    isolated: Annotated[tuple[Isolation, ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
    runtime_versions: Annotated[tuple[RuntimeVersion, ...], Meta(max_length=8)] = ()
    comparisons: Annotated[
        tuple[Annotated[str, Meta(max_length=COMPARISON_CHARS)], ...], Meta(max_length=COMPARISONS)
    ] = ()
    takes_labels: bool = False
    labels: OwnLabels | None = None
    disk_fault: Annotated[str, Meta(max_length=32)] = ""
    datatypes: Annotated[tuple[Annotated[str, Meta(max_length=16)], ...], Meta(max_length=64)] = ()


class EnrolRequest(Wire, frozen=True, kw_only=True):
    """Exchanges a one-use claim for a credential.

    ``key`` is a secret of the device: a claim that was used gives the credential again to the same
    key, as after an answer that was lost. Empty from older agents, which need another claim.
    """

    protocol: int
    claim: Annotated[str, Meta(max_length=200)]
    name: Name
    facts: Facts
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    key: Annotated[str, Meta(max_length=128)] = ""


class EnrolAnswer(Wire, frozen=True, kw_only=True):
    """``token`` is the device's credential, for ``Authorization: Bearer`` of later requests."""

    device: str
    token: Token
    checkin_url: str
    interval_s: float


class Endpoints(Wire, frozen=True, kw_only=True):
    """The address for check-ins (``GET /device/v1/endpoints``)."""

    checkin_url: str


class OutcomeKind(StrEnum):
    """Outcomes of an attempt."""

    REFUSED = "refused"  # the device did not activate the release and still serves the previous one
    TRIAL_STARTED = "trial_started"  # sent before the switch; acknowledgement admits the start
    CONFIRMED = "confirmed"
    TRIAL_FAILED = "trial_failed"  # the device activated the previous release again
    REVERTED = "reverted"  # on the hub's order the device activated the previous release
    DEFERRED = "deferred"  # the device postponed the attempt: disk full or closed window
    WITHDRAWN = "withdrawn"  # the device cancelled the start; the release never ran


class WrongBytes(Wire, frozen=True, kw_only=True):
    """Two fresh downloads of an artifact brought the same bytes, which are not the artifact."""

    expected: Digest  # of the artifact, in the manifest
    found: Digest


class Outcome(Wire, frozen=True, kw_only=True):
    """One durable report. ``id`` is its idempotency key: the hub counts repeated reports once.

    ``wrong_bytes`` goes with a deferral. Older agents do not send it.
    """

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    rollout: Annotated[str, Meta(max_length=64)]
    release: Name
    kind: OutcomeKind
    at: float
    reason: Annotated[str, Meta(max_length=64)] = ""  # a stable code, see ``Reason``
    detail: Annotated[str, Meta(max_length=500)] = ""
    accuracy: Share | None = None  # on the golden set; sent with a confirmation
    accuracy_before: Share | None = None  # of the previous release, if the golden set is the same
    attempt: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] = 0  # rises with each attempt
    wrong_bytes: WrongBytes | None = None


class Reason(StrEnum):
    """Why an attempt failed: stable codes."""

    SIGNATURE = "signature_invalid"
    UNREADABLE = "manifest_unreadable"  # signed by a trusted key, of a version that it cannot read
    DIGEST = "digest_mismatch"
    NO_VARIANT = "no_variant"
    TOO_LARGE = "does_not_fit"
    GOLDEN = "golden_failed"
    LOAD = "load_failed"
    CRASH = "serving_crashed"
    ERRORS = "inference_errors"
    REFUSALS = "requests_refused"  # before the model ran, and the previous release ran on them
    CONFIDENCE = "confidence_drop"
    ANSWERS = "answers_differ"  # in the shadow phase, from those of the active release
    HUNG = "inference_hung"  # a request in the trial did not end
    SILENT = "no_answer"  # the release answered no request in its trial, the previous one did
    CPU = "cpu_increase"  # CPU time of a request far above that of the previous release
    MEMORY_GROWTH = "memory_growth"  # the memory of its process grew steadily during the trial
    INTERRUPTED = "trial_interrupted"  # power or process lost in max_attempts trials
    DISK_FULL = "disk_full"
    TRANSFER = "transfer_damaged"  # the downloads brought other bytes
    NEIGHBOUR = "neighbour_harmed"  # another model on the device got worse during the trial
    SERVING = "serving_failed"  # since the confirmation: down, or its process ends repeatedly
    RECALLED = "recalled"  # the hub ordered the device back to the previous release


class Sketches(Wire, frozen=True, kw_only=True):
    """Histograms of served requests. Histograms of several devices are added bin by bin.

    ``latency`` has 8 buckets per octave of microseconds: below 16 the index is the duration, above
    it is 8 * octave + mantissa. ``confidence`` has equal bins from 0 to 1. ``classes`` counts the
    top class modulo 32. ``inputs`` counts the mean of the input in quarter octaves modulo 16.
    """

    latency: Annotated[dict[Annotated[int, Meta(ge=0, le=215)], Count], Meta(max_length=64)] = (
        msgspec.field(default_factory=dict)
    )
    confidence: Annotated[tuple[Count, ...], Meta(max_length=16)] = ()
    classes: Annotated[tuple[Count, ...], Meta(max_length=32)] = ()
    inputs: Annotated[tuple[Count, ...], Meta(max_length=16)] = ()


class Switch(Wire, frozen=True, kw_only=True):
    """A model of a device and the release to which it was switched. None: it was removed."""

    model: Name
    release: Name | None = None


class Scores(Wire, frozen=True, kw_only=True):
    """A device's last full window compared with the window before it.

    Both windows may be of one release or of two. None if the device does not know the value.
    ``switched`` is the switch of another model between the two windows. No scores span two switches
    of other models.
    """

    from_release: Name
    to_release: Name
    requests: Count  # in the window with fewer requests
    latency_log_ratio: Annotated[float, Meta(ge=-20, le=20)] | None = None  # of the p95
    error_rate_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None
    confidence_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None
    class_drift: Share | None = None  # total variation of the two histograms
    input_drift: Share | None = None
    request_rate_change: Annotated[float, Meta(ge=-1, le=1)] | None = None  # of the larger rate
    latency_us_p95: Count | None = None  # of the last window
    error_rate: Share | None = None  # of the last window
    refusal_rate_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None
    refusal_rate: Share | None = None  # of the last window
    asked: Count = 0  # requests and refused ones, in the window with fewer
    cpu_log_ratio: Annotated[float, Meta(ge=-20, le=20)] | None = None  # of CPU time per request
    # From windows of ten minutes, in ``Telemetry.costs``.
    memory_growth_delta: Annotated[float, Meta(ge=-1e6, le=1e6)] | None = None  # MiB an hour
    temperature_delta: Annotated[float, Meta(ge=-1e3, le=1e3)] | None = None  # degrees Celsius
    throttled_delta: Annotated[float, Meta(ge=-1, le=1)] | None = None  # of the share of the time
    battery_drain_delta: Annotated[float, Meta(ge=-1e6, le=1e6)] | None = None  # percent an hour
    switched: Switch | None = None


class Telemetry(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """Serving figures of one release since the last acknowledged check-in.

    ``requests`` reached the model, ``refused`` did not; ``refusal_example`` says in words how a
    request and the release differ. ``model`` is None from an agent of protocol 2, which has one
    model. Old agents send no ``sketches``, no ``scores`` and no refusals. ``latency_us_p95`` is
    that since the release was loaded, its warm-up included.
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
    costs: Scores | None = None  # of windows of ten minutes: memory growth, and what sensors say
    cpu_s: Annotated[float, Meta(ge=0, le=1e15)] = 0.0  # of the model's inferences
    refused: Count = 0
    refusals: Refusals = msgspec.field(default_factory=dict)
    refusal_example: Annotated[str, Meta(max_length=REFUSAL_CHARS)] = ""
    model: Name | None = None

    @property
    def has_scores(self) -> bool:
        """True if it carries scores, or costs, of this one device."""
        return self.scores is not None or self.costs is not None

    @property
    def asked(self) -> int:
        """Requests, with those that were refused before the model ran."""
        return self.requests + self.refused


class Phase(StrEnum):
    """The agent's phase."""

    IDLE = "idle"
    FETCHING = "fetching"
    PROVING = "proving"
    STAGED = "staged"  # downloaded and proved; waits for admission
    TRIAL = "trial"
    REVERTING = "reverting"


class ModelReport(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """One model on a device. ``release`` is the active one, in trial or confirmed.

    Without a release and idle: the device does not have the model any more.
    """

    model: Name
    release: Name | None = None
    phase: Phase = Phase.IDLE

    @property
    def is_on_device(self) -> bool:
        """False if the report says that the device does not have the model."""
        return self.release is not None or self.phase is not Phase.IDLE


def digest(reports: Iterable[ModelReport]) -> int:
    """The CRC-32 of the models on a device, in any order. 0 if there is none.

    Device and hub compare it at every check-in, so a lost answer or a restored hub is noticed.
    """
    lines = sorted(
        f"{one.model}\0{one.release or ''}\0{one.phase}\n" for one in reports if one.is_on_device
    )
    return crc32("".join(lines).encode())


class CheckIn(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """A device's report. ``seq`` rises with each check-in, so the hub refuses a replayed one.

    ``models`` are those that changed since the last answered check-in, so a heartbeat has the same
    size for any number of models. With ``full`` they are all models of the device. An agent of
    protocol 2 has one model and sends ``model``, ``release`` and ``phase`` each time instead.
    ``given`` has those of ``models`` whose release a rollout gave the device, with that rollout, as
    far as the device knows it. ``labels`` are sent after a change. ``truth_done`` acknowledges the
    labels of the hub up to this number. ``serving`` is None while every confirmed release is served
    and no process that serves ended by itself lately. ``run`` is a random number of this run of the
    agent, by which the hub tells a restart from a second device with the same credential. It is
    sent until a check-in is answered, and again after each one that failed.
    """

    protocol: Annotated[int, Meta(ge=OLDEST, le=PROTOCOL)]
    seq: Annotated[int, Meta(ge=1, le=1 << 53)]
    digest: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    models: Annotated[tuple[ModelReport, ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
    full: bool = False
    given: Annotated[tuple[tuple[Name, Name], ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
    phase: Phase = Phase.IDLE
    model: Name | None = None
    release: Name | None = None  # the active release, in trial or confirmed
    outcomes: Annotated[tuple[Outcome, ...], Meta(max_length=16)] = ()
    telemetry: Telemetry | None = None
    facts: Facts | None = None
    labels: LabelReport | None = None
    truth_done: Annotated[int, Meta(ge=0)] = 0
    serving: ServingHealth | None = None
    run: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0


def run_name(run: int) -> str:
    """The number of a run as the log of the agent and the hub show it."""
    return f"{run:08x}"


class Offer(Wire, frozen=True, kw_only=True):
    """The release that the device should run, if it differs from the reported one."""

    rollout: Annotated[str, Meta(max_length=64)]  # the rollout that the device's outcomes name
    action: Literal["install", "revert"]
    model: Name
    release: Name
    manifest_sha256: Digest
    confirm_after_s: Annotated[
        float, Meta(ge=0)
    ]  # healthy time in trial before the device confirms
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 2
    # Limits of the plan that the trial judges, too. None from an older hub: it does not.
    max_cpu_increase: Annotated[float, Meta(ge=0)] | None = None
    max_memory_growth_mib_h: Annotated[float, Meta(ge=0)] | None = None
    shadow: Shadow | None = None  # before the trial. None: no shadow phase


class CheckInAnswer(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """``acked`` lists the ids of outcomes that are durable at the hub. The device deletes these.

    A start whose id is not in ``acked`` is not admitted yet: the device asks again later.
    ``offers`` has at most one offer for each model, of the oldest rollout first. ``want`` asks for
    the facts, or for the full list of models, in the next check-in. ``truth`` has labels until the
    device acknowledges them. ``labels`` answers facts with labels: those with which the hub counts
    the device. An agent of protocol 2 gets ``offer`` and ``want_facts`` instead.
    """

    interval_s: float
    acked: tuple[str, ...] = ()
    offers: Annotated[tuple[Offer, ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
    want: Literal["", "facts", "models", "all"] = ""
    truth: Annotated[tuple[ModelTruth, ...], Meta(max_length=LABELS_PER_ANSWER)] = ()
    labels: dict[str, str] | None = None
    offer: Offer | None = None
    want_facts: bool = False
