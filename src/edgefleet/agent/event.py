"""Events, the inputs of the core. Names are in the past tense. Each is plain data.

``draw`` is a random number in [0, 1) by the shell: the core's only source of randomness.
``job`` repeats the number of the effect that it completes.
"""

from edgefleet.agent.cost_figures import Board
from edgefleet.agent.state import Pace, SlotName
from edgefleet.protocol.device import CheckInAnswer, Facts
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult, ServingStatus
from edgefleet.protocol.wire import Wire


class Booted(Wire, frozen=True, kw_only=True):
    """The agent started. Always the first event, also after a crash."""

    facts: Facts
    whole: dict[str, tuple[SlotName, ...]]  # by model: slots whose files have the stored digests
    pointer: dict[str, SlotName]  # the content of the pointer file
    serving: ServingStatus | None  # the status of a running process, if any
    draw: float
    pace: Pace = Pace()
    disk_fault: str = ""  # as in DiskChecked
    disk_detail: str = ""


class TimerFired(Wire, frozen=True, kw_only=True):
    """The timer of ``SetTimer`` expired."""

    draw: float


class CheckInAnswered(Wire, frozen=True, kw_only=True):
    """The hub answered the check-in."""

    seq: int
    answer: CheckInAnswer
    draw: float


class CheckInFailed(Wire, frozen=True, kw_only=True):
    """No answer, or an error of the hub: a ``code`` of base.errors, and a sentence.

    ``retry_after_s`` is the pause that an overloaded hub asks for. 0: it asks for none.
    """

    seq: int
    code: str
    draw: float
    next_seq: int | None = None
    detail: str = ""
    retry_after_s: float = 0.0


class ManifestOpened(Wire, frozen=True, kw_only=True):
    """The manifest has a valid signature. ``sha256`` is the digest of the signed payload.

    ``slot_bytes`` is the size of the slot's files, which the download replaces or reuses. None as
    ``free_bytes``: the disk was not measured.
    """

    model: str
    job: int
    sha256: str
    manifest: ReleaseManifest
    free_bytes: int | None = None
    slot_bytes: int = 0


class Fetched(Wire, frozen=True, kw_only=True):
    """The file is complete and durable, and has the requested digest."""

    model: str
    job: int


class StagingFailed(Wire, frozen=True, kw_only=True):
    """A manifest, fetch or proof failed. ``code`` is one of base.errors.

    ``expected``, ``found`` and ``refusal`` are those of an answer that was damaged, see
    ``transfer``.
    """

    model: str
    job: int
    code: str
    detail: str
    draw: float
    expected: str = ""
    found: str = ""
    refusal: str = ""


class Proved(Wire, frozen=True, kw_only=True):
    """The golden set ran. ``result`` has whether it passed."""

    model: str
    job: int
    result: ProveResult


class Activated(Wire, frozen=True, kw_only=True):
    """The serving process serves the wanted set. The last fields are those of ``ServingProbed``."""

    job: int
    status: ServingStatus
    ran: tuple[str, ...] = ()
    hung: bool = False
    ends: tuple[str, ...] = ()


class ActivationFailed(Wire, frozen=True, kw_only=True):
    """The wanted set was not applied. ``reason`` is a ``Reason`` or a code of base.errors.

    ``model`` is the model that failed. Empty if the failure names none: the process ended, or was
    ended because it did not answer. The last fields are those of ``ServingProbed``.
    """

    job: int
    reason: str
    detail: str
    draw: float
    model: str = ""
    ran: tuple[str, ...] = ()
    hung: bool = False
    ends: tuple[str, ...] = ()


class ServingProbed(Wire, frozen=True, kw_only=True):
    """The result of a probe. No status with ``alive``: the process runs, but does not answer.

    ``ran`` are the models that ran in the process when it ended, if it ended since the last probe.
    ``hung``: the agent ended it, because it did not answer. ``ends`` are the causes of its ends
    since the last probe that the agent did not order, see ``protocol.serving_health``. ``board`` is
    None without sensors.
    """

    status: ServingStatus | None
    alive: bool
    draw: float
    ran: tuple[str, ...] = ()
    hung: bool = False
    ends: tuple[str, ...] = ()
    board: Board | None = None


class TruthGiven(Wire, frozen=True, kw_only=True):
    """The serving process has the labels of the hub up to ``number``."""

    number: int


class DiskChecked(Wire, frozen=True, kw_only=True):
    """The result of a write has changed. ``fault`` is a code of base.errors, "" if it succeeded.

    ``detail`` names the path and the error of the operating system.
    """

    fault: str
    detail: str = ""


Event = (
    Booted
    | TimerFired
    | CheckInAnswered
    | CheckInFailed
    | ManifestOpened
    | Fetched
    | StagingFailed
    | Proved
    | Activated
    | ActivationFailed
    | ServingProbed
    | TruthGiven
    | DiskChecked
)
