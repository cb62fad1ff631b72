"""Messages between the agent and the serving process on one device.

HTTP on a Unix socket in the agent's data folder, which other users cannot open:
``GET /control/status`` -> ServingStatus, ``POST /control/apply`` Apply -> ServingStatus,
``POST /control/truth`` Truths -> Labelled.
Before a trial a separate process (``python -m edgefleet.serving.prove``) proves the candidate:
it reads ProveRequest as JSON on standard input and prints ProveResult as its last line.
"""

from typing import Final, Literal

import msgspec

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.comparisons import Comparison
from edgefleet.protocol.device import Refusals, Sketches
from edgefleet.protocol.labels import LabelReport, ModelTruth
from edgefleet.protocol.release import Golden, Quality, Variant
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.protocol.wire import Wire

CONTROL_API: Final = 2
"""The version of the messages on the control socket. Version 1 had one model, and no number."""


class ControlVersion(Wire, frozen=True, kw_only=True):
    """The part of each version's status that every agent reads. A serving process may be older."""

    api: int = 1


class ServedRelease(Wire, frozen=True, kw_only=True):
    """One release of a model to load. ``artifact_path`` is the path of its artifact.

    ``golden_path`` is where its golden set may be, for the warm-up. ``manifest_path`` is the place
    of its signed envelope, for the names of its classes. They count if the payload has the digest
    ``manifest_sha256``. Empty if it is not known.
    """

    release: str
    variant: Variant
    quality: Quality | None  # None: the task has no class scores
    artifact_path: str
    golden_path: str = ""
    manifest_path: str = ""
    manifest_sha256: str = ""


class ServedShadow(Wire, frozen=True, kw_only=True):
    """A candidate that also answers a ``share`` of the requests, and whose answers no caller gets.

    Its answers are compared by ``comparison``. None: by the highest scores of the first output.
    """

    release: ServedRelease
    share: float
    comparison: Comparison | None = None


class ServedModel(Wire, frozen=True, kw_only=True):
    """The releases of one model to load. Requests go to ``trial``, without one to ``confirmed``.

    With ``isolation`` ``process`` the confirmed release has its own worker process, too. A
    ``shadow`` is loaded after the others, and only if memory allows it beside them: that fails no
    Apply, see ``ModelStatus.shadow``.
    """

    model: str
    confirmed: ServedRelease | None = None
    trial: ServedRelease | None = None
    isolation: Literal["shared", "process"] = "shared"
    shadow: ServedShadow | None = None


class Apply(Wire, frozen=True, kw_only=True):
    """All models to serve. Models that are not listed are unloaded.

    Idempotent, without a dropped request, and all or nothing: after an error, whose ``field`` is
    the name of the model, the process serves the same releases as before. ``generation`` is a
    number for the set.
    """

    generation: int
    models: tuple[ServedModel, ...]


class LiveStats(Wire, frozen=True, kw_only=True):
    """Counters since this release was loaded in this process. ``memory_mib`` is its own share.

    ``requests`` reached the model, ``refused`` did not: wrong name, wrong shape, queue full.
    ``refusal_example`` says how a request and the release differ, for the most frequent kind.
    ``oldest_in_flight_s`` is the age of the oldest request that runs or waits, 0 without one.
    ``last_answer_s`` is the age of the last successful answer, None without one.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    refusals: Refusals = msgspec.field(default_factory=dict)
    refusal_example: str = ""
    confidence_sum: float = 0.0
    confidence_count: int = 0
    latency_us_p50: int = 0
    latency_us_p95: int = 0
    in_flight: int = 0
    oldest_in_flight_s: float = 0.0
    last_answer_s: float | None = None
    cpu_s: float = 0.0  # of the inferences alone. 0 from a serving process that does not count it
    process_kib: int = 0  # resident memory of the process that runs it, also for other models
    memory_mib: int = 0
    sketches: Sketches = Sketches()


class CpuUse(Wire, frozen=True, kw_only=True):
    """Counters of CPU seconds: of all programs on the machine, and of the processes that serve.

    ``serving_s`` includes all workers, also those that have ended. ``cores`` may run them.
    """

    machine_s: float
    serving_s: float
    cores: int


class ModelStatus(Wire, frozen=True, kw_only=True):
    """One served model. ``release`` is the release that requests go to, ``stats`` are of it.

    ``worker`` is the pid of its worker process. None if it runs in the shared process.
    ``trial_ended`` is not empty if the worker of the trial ended by itself: requests go to the
    confirmed release again. ``confirmed_ended`` is the cause (``serving_health.end_cause``) if the
    worker of the confirmed release ended by itself. ``worker_cpu_s`` is a counter of the worker's
    CPU seconds. ``load`` is how the newest release was loaded, with the figures of its memory: it
    begins with ``beside`` or ``drain``. Empty from a serving process that does not say it.
    ``shadow`` is None without a shadow.
    """

    model: str
    release: str
    artifact_sha256: str
    ready: bool
    on_trial: bool = False
    worker: int | None = None
    worker_cpu_s: float = 0.0
    trial_ended: str = ""
    confirmed_ended: str = ""
    load: str = ""
    stats: LiveStats = LiveStats()
    shadow: ShadowStatus | None = None


class StuckRelease(Wire, frozen=True, kw_only=True):
    """A release that was taken out, and has let go of no request for ``for_s`` seconds."""

    model: str
    release: str
    for_s: float


class Truths(Wire, frozen=True, kw_only=True):
    """Labels from the hub for the answers of this process."""

    truth: tuple[ModelTruth, ...]


class ServingStatus(Wire, frozen=True, kw_only=True):
    """The process and its models, in the order of ``Apply``. ``memory_mib`` is of the process.

    ``cpu`` is None if the system does not say it. ``stuck`` are releases that were taken out, of
    which a request still runs in the shared process: only the end of the process ends it.
    ``labels`` is None without labels.
    """

    api: int = CONTROL_API
    pid: int
    version: str = ""  # of edgefleet
    url: str = ""  # where inference is served, http://host:port
    grpc: str = ""  # the same for gRPC, host:port; empty: it is not served
    generation: int = 0
    memory_mib: int = 0
    cpu: CpuUse | None = None
    labels: LabelReport | None = None
    models: tuple[ModelStatus, ...] = ()
    stuck: tuple[StuckRelease, ...] = ()


def check_control_api(version: int) -> None:
    """Raises DeviceError ``protocol_unsupported`` if ``version`` is another one."""
    if version != CONTROL_API:
        raise DeviceError(
            "protocol_unsupported",
            f"The serving process speaks version {version} of the control API, this agent version "
            f"{CONTROL_API}.",
            field="api",
        )


def model_status(status: ServingStatus | None, model: str) -> ModelStatus | None:
    """The entry of ``model``. None if the process does not serve it, or is not known."""
    if status is not None:
        for one in status.models:
            if one.model == model:
                return one
    return None


class ProveRequest(Wire, frozen=True, kw_only=True):
    """Runs the golden set on a candidate, with the runtime and options of serving."""

    variant: Variant
    golden: Golden
    artifact_path: str
    golden_path: str


class ProveResult(Wire, frozen=True, kw_only=True):
    """``reason`` is a ``Reason`` of protocol.device if ``passed`` is false.

    ``accuracy`` is None if the golden set has no truth. ``runtime`` is the runtime's version.
    """

    passed: bool
    reason: Literal["", "golden_failed", "load_failed"] = ""
    detail: str = ""
    accuracy: float | None = 0.0
    agreement: float = 0.0
    cases: int = 0
    latency_us_p50: int = 0
    load_ms: float = 0.0
    runtime: str = ""
