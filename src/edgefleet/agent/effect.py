"""Actions that the core requests. Names are imperative. Each is plain data and idempotent."""

from typing import Literal

from edgefleet.agent.state import InstalledRelease, SlotName
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.labels import ModelTruth
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.wire import Wire

FileName = Literal["model.onnx", "golden.npz"]


class SendCheckIn(Wire, frozen=True, kw_only=True):
    """Send a check-in. Completes with CheckInAnswered or CheckInFailed."""

    check_in: CheckIn


class FetchManifest(Wire, frozen=True, kw_only=True):
    """Download the envelope, verify its signature, store it in the slot, measure the disk.

    Completes with ManifestOpened or StagingFailed (such as ``signature_invalid``).
    """

    model: str
    job: int
    slot: SlotName
    sha256: str


class Fetch(Wire, frozen=True, kw_only=True):
    """Download a file of the idle slot, resuming a partial download. No effect if it is complete.

    Completes with Fetched or StagingFailed (``disk_full``, ``digest_mismatch``, a network code).
    """

    model: str
    job: int
    slot: SlotName
    file: FileName
    artifact: Artifact


class Prove(Wire, frozen=True, kw_only=True):
    """Run the golden set on the slot, in a separate process.

    Completes with Proved or StagingFailed (``runtime_missing``).
    """

    model: str
    job: int
    slot: SlotName
    installed: InstalledRelease


class CancelStaging(Wire, frozen=True, kw_only=True):
    """Stop the model's manifest, fetch or proof in progress. Its completion is ignored."""

    model: str


class WantedRelease(Wire, frozen=True, kw_only=True):
    """A release to serve, and the slot that has its files."""

    slot: SlotName
    installed: InstalledRelease


class WantedShadow(Wire, frozen=True, kw_only=True):
    """A candidate that also answers a ``share`` of the live requests, for no caller."""

    release: WantedRelease
    share: float


class WantedModel(Wire, frozen=True, kw_only=True):
    """The releases of one model to serve. Requests go to the release on trial if there is one.

    With ``isolation`` ``process`` the confirmed release has a worker of its own, too. Requests
    never go to the ``shadow``.
    """

    model: str
    confirmed: WantedRelease | None = None
    trial: WantedRelease | None = None
    isolation: Literal["shared", "process"] = "shared"
    shadow: WantedShadow | None = None


class Apply(Wire, frozen=True, kw_only=True):
    """Make the serving process serve these models and no others. Starts it if it does not run.

    No effect for a model whose release it serves already. With ``anew`` the process is started
    again first: a request of a release that it does not serve any more never ends. With ``swap`` it
    is started again because it is of another version than the agent. Completes with Activated, or
    with ActivationFailed and the previous set. A newer Apply replaces an older one.
    """

    job: int
    generation: int
    models: tuple[WantedModel, ...]  # by name
    anew: bool = False
    swap: bool = False


class StopServing(Wire, frozen=True, kw_only=True):
    """Stop the serving process: no model is left. Completes with ServingProbed (not alive)."""


class Probe(Wire, frozen=True, kw_only=True):
    """Read the status of the serving process. Completes with ServingProbed."""


class MovePointer(Wire, frozen=True, kw_only=True):
    """Write the confirmed slot of each model into the pointer file, atomically. No event."""

    slots: dict[str, SlotName]


class RemoveSlot(Wire, frozen=True, kw_only=True):
    """Remove the files of a model's slot. No event."""

    model: str
    slot: SlotName


class GiveTruth(Wire, frozen=True, kw_only=True):
    """Give labels to the serving process. Completes with TruthGiven; without an event it failed."""

    truth: tuple[ModelTruth, ...]


class SetTimer(Wire, frozen=True, kw_only=True):
    """Wake the core at ``at``. Replaces the previous timer. The last effect of every step."""

    at: float


def routed(model: WantedModel) -> WantedRelease:
    """The release that the requests of ``model`` go to."""
    wanted = model.trial or model.confirmed
    assert wanted is not None, f"{model.model} has no release"  # noqa: S101 - a defect, not input
    return wanted


Effect = (
    SendCheckIn
    | FetchManifest
    | Fetch
    | Prove
    | CancelStaging
    | Apply
    | StopServing
    | Probe
    | MovePointer
    | RemoveSlot
    | GiveTruth
    | SetTimer
)
