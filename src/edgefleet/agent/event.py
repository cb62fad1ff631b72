"""What happens to the agent. Past tense; each is plain data.

``draw`` is a number in [0, 1) that the shell takes from its entropy: the core's only chance.
``job`` repeats the number of the effect that it completes.
"""

from edgefleet.agent.state import Pace, SlotName
from edgefleet.protocol.device import CheckInAnswer, Facts
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult, ServingStatus
from edgefleet.protocol.wire import Wire


class Booted(Wire, frozen=True, kw_only=True):
    """The agent started. Always the first event, after a crash as after an installation."""

    facts: Facts
    whole: tuple[SlotName, ...]  # slots whose files have the digests that the state says
    pointer: SlotName | None  # what the pointer file says
    serving: ServingStatus | None  # the process found alive, if any
    draw: float
    pace: Pace = Pace()


class TimerFired(Wire, frozen=True, kw_only=True):
    """The timer of ``SetTimer`` ran out."""

    draw: float


class CheckInAnswered(Wire, frozen=True, kw_only=True):
    """The hub answered."""

    seq: int
    answer: CheckInAnswer
    draw: float


class CheckInFailed(Wire, frozen=True, kw_only=True):
    """No answer, or a refusal. ``code`` is one of base.errors."""

    seq: int
    code: str
    draw: float
    next_seq: int | None = None


class ManifestOpened(Wire, frozen=True, kw_only=True):
    """A trusted key signed it; ``sha256`` is the digest of what was signed."""

    job: int
    sha256: str
    manifest: ReleaseManifest


class Fetched(Wire, frozen=True, kw_only=True):
    """The file is whole, durable, and has the digest that was asked for."""

    job: int


class StagingFailed(Wire, frozen=True, kw_only=True):
    """A manifest, fetch or proof that did not come to its end. ``code`` is one of base.errors."""

    job: int
    code: str
    detail: str
    draw: float


class Proved(Wire, frozen=True, kw_only=True):
    """The golden set ran. The result says whether it passed."""

    job: int
    result: ProveResult


class Activated(Wire, frozen=True, kw_only=True):
    """The serving process serves the slot."""

    job: int
    status: ServingStatus


class ActivationFailed(Wire, frozen=True, kw_only=True):
    """It does not. ``reason`` is a ``Reason`` of protocol.device or a code of base.errors."""

    job: int
    reason: str
    detail: str
    draw: float


class ServingProbed(Wire, frozen=True, kw_only=True):
    """A look at the serving process. No status and ``alive``: it is there but does not answer."""

    status: ServingStatus | None
    alive: bool
    draw: float


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
)
