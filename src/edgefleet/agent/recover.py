"""A device that lost its state, but not its model, finds it again.

The pointer names the slot that served, and the slot keeps the signed envelope of what it holds:
enough to serve on and to say so. What else the state knew (attempts, unsent outcomes) is gone.
"""

from collections.abc import Callable

from edgefleet.agent.slots import MANIFEST, Slots, path
from edgefleet.agent.state import AgentState, InstalledRelease, Slot
from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import ReleaseManifest

Open = Callable[[bytes], tuple[str, ReleaseManifest]]
"""Check an envelope's signature; returns the payload's digest and what it holds."""


def recover(slots: Slots, profile: str, open_envelope: Open, now: float) -> AgentState:
    """The state of a device that is new, or of one whose state is gone.

    Attempts are counted on from the time in seconds, so that no outcome's id is used again.
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
    held = InstalledRelease(
        model=manifest.model,
        release=manifest.release,
        manifest_sha256=digest,
        variant=variant,
        golden=manifest.golden,
        quality=manifest.quality,
    )
    if not slots.holds(name, held):
        return AgentState()
    found = Slot(held=held, proved=True, confirmed=True)
    empty = Slot()
    return AgentState(
        active=name,
        attempts=int(now),
        a=found if name == "a" else empty,
        b=found if name == "b" else empty,
    )
