"""Recovers the installed release of a device whose state file is lost.

The pointer file names the active slot, and the slot has the signed envelope of its release. The
other content of the state (attempts, unsent outcomes) is lost.
"""

from collections.abc import Callable

from edgefleet.agent.slots import MANIFEST, Slots, path
from edgefleet.agent.state import AgentState, InstalledRelease, Slot
from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import ReleaseManifest

Open = Callable[[bytes], tuple[str, ReleaseManifest]]
"""Verifies an envelope. Returns the payload's digest and the manifest."""


def recover(slots: Slots, profile: str, open_envelope: Open, now: float) -> AgentState:
    """The state of a new device, or of one whose state is lost.

    The number of attempts continues from the time in seconds, so that no outcome id is reused.
    """
    name = slots.pointer()
    envelope = slots.storage.read(path(name, MANIFEST)) if name else None
    if name is None or envelope is None:
        return AgentState()
    try:
        digest, manifest = open_envelope(envelope)
    except EdgefleetError:
        return AgentState()
    variant = next((one for one in manifest.variants if one.profile == profile), None)
    if variant is None:
        return AgentState()
    installed = InstalledRelease(
        model=manifest.model,
        release=manifest.release,
        manifest_sha256=digest,
        variant=variant,
        golden=manifest.golden,
        quality=manifest.quality,
    )
    if not slots.has_files_of(name, installed):
        return AgentState()
    found = Slot(installed=installed, proved=True, confirmed=True)
    empty = Slot()
    return AgentState(
        active=name,
        attempts=int(now),
        a=found if name == "a" else empty,
        b=found if name == "b" else empty,
    )
