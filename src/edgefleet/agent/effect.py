"""What the agent wants done. Imperative; each is plain data, and doing it twice does no harm."""

from typing import Literal

from edgefleet.agent.state import InstalledRelease, SlotName
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.wire import Wire

FileName = Literal["model.onnx", "golden.npz"]


class SendCheckIn(Wire, frozen=True, kw_only=True):
    """Completes with CheckInAnswered or CheckInFailed."""

    check_in: CheckIn


class FetchManifest(Wire, frozen=True, kw_only=True):
    """Get the envelope, check its signature, keep it in the slot.

    Completes with ManifestOpened or StagingFailed (``signature_invalid`` and the like).
    """

    job: int
    slot: SlotName
    sha256: str


class Fetch(Wire, frozen=True, kw_only=True):
    """Bring one file of the idle slot here, going on where it stopped; nothing when it is there.

    Completes with Fetched or StagingFailed (``disk_full``, ``digest_mismatch``, a network code).
    """

    job: int
    slot: SlotName
    file: FileName
    artifact: Artifact


class Prove(Wire, frozen=True, kw_only=True):
    """Run the golden set on the slot, in a process of its own.

    Completes with Proved or StagingFailed (``runtime_missing``).
    """

    job: int
    slot: SlotName
    held: InstalledRelease


class CancelStaging(Wire, frozen=True, kw_only=True):
    """Stop the manifest, fetch or proof under way. Its completion is ignored."""


class Activate(Wire, frozen=True, kw_only=True):
    """Make the serving process serve the slot; start the process when it is not there.

    Nothing to do when it serves that very artifact already. Completes with Activated or
    ActivationFailed.
    """

    job: int
    slot: SlotName
    held: InstalledRelease


class StopServing(Wire, frozen=True, kw_only=True):
    """There is nothing valid to serve. Completes with ServingProbed (not alive)."""


class Probe(Wire, frozen=True, kw_only=True):
    """Look at the serving process. Completes with ServingProbed."""


class MovePointer(Wire, frozen=True, kw_only=True):
    """Write the pointer file, in one step; None: nothing valid is here. No event."""

    slot: SlotName | None


class RemoveSlot(Wire, frozen=True, kw_only=True):
    """Remove the slot's files: its release is not wanted here. No event."""

    slot: SlotName


class SetTimer(Wire, frozen=True, kw_only=True):
    """Wake the core at ``at``, instead of when the last one said. The last effect of every step."""

    at: float


Effect = (
    SendCheckIn
    | FetchManifest
    | Fetch
    | Prove
    | CancelStaging
    | Activate
    | StopServing
    | Probe
    | MovePointer
    | RemoveSlot
    | SetTimer
)
