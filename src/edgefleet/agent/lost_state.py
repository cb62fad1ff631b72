"""Recovers the installed releases of a device whose state file is lost.

The pointer file names the confirmed slot of each model, and the slot has the signed envelope of its
release. The other content of the state (attempts, unsent outcomes) is lost.
"""

import contextlib
from collections.abc import Callable

from edgefleet.agent.slots import (
    MANIFEST,
    MODELS,
    OLD_SLOTS,
    Slots,
    folder,
    path,
    read_pointer,
)
from edgefleet.agent.state import AgentState, InstalledRelease, ModelState, Slot, SlotName, other
from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.base.ids import is_name
from edgefleet.protocol.release import ReleaseManifest

Open = Callable[[bytes], tuple[str, ReleaseManifest]]
"""Verifies an envelope. Returns the payload's digest and the manifest."""


def recover(slots: Slots, profile: str, open_envelope: Open, now: float) -> AgentState:
    """The state of a new device, or of one whose state is lost.

    A line of the pointer file whose model has no intact slot is ignored. The number of attempts
    continues from the time in seconds, so that no outcome id is reused.
    """
    models: dict[str, ModelState] = {}
    for model, name in _confirmed(slots, open_envelope).items():
        installed = _installed(slots, model, name, profile, open_envelope)
        if installed is not None:
            found = Slot(installed=installed, proved=True, confirmed=True)
            idle = Slot(leftover=bool(slots.names(folder(model, other(name)))))
            models[model] = ModelState(
                active=name, a=found if name == "a" else idle, b=found if name == "b" else idle
            )
    return AgentState(models=models, attempts=int(now) if models else 0)


def _confirmed(slots: Slots, open_envelope: Open) -> dict[str, SlotName]:
    """The slots in the pointer file. Before version 3 of the state it was the name of one slot."""
    storage = slots.storage
    content = slots.pointer_content()
    if content not in (b"a", b"b"):
        return read_pointer(content)
    name: SlotName = "a" if content == b"a" else "b"
    before = f"{OLD_SLOTS}/{name}"
    opened = _opened(slots.read(f"{before}/{MANIFEST}"), open_envelope)
    if opened is not None and is_name(opened[1].model):
        with contextlib.suppress(DeviceError):
            storage.remove(folder(opened[1].model, name))
            storage.rename(before, folder(opened[1].model, name))
    return {model: name for model in slots.names(MODELS) if is_name(model)}


def _opened(envelope: bytes | None, open_envelope: Open) -> tuple[str, ReleaseManifest] | None:
    try:
        return None if envelope is None else open_envelope(envelope)
    except EdgefleetError:
        return None


def _installed(
    slots: Slots, model: str, name: SlotName, profile: str, open_envelope: Open
) -> InstalledRelease | None:
    """The release in the slot. None if its envelope is not valid or its model is damaged."""
    opened = _opened(slots.read(path(model, name, MANIFEST)), open_envelope)
    if opened is None:
        return None
    digest, manifest = opened
    variant = next((one for one in manifest.variants if one.profile == profile), None)
    if variant is None or manifest.model != model:
        return None
    installed = InstalledRelease.of(manifest, digest, variant)
    return installed if slots.has_model_of(name, installed) else None
