"""The agent's files on its storage.

::

    state.json                      all that the core knows, see agent/state.py
    active                          the pointer: the name of the slot that serves
    slots/a|b/manifest.json         the signed envelope
    slots/a|b/model.onnx
    slots/a|b/golden.npz
    slots/a|b/<file>.<digest>.part  a download on its way
    credential.json                 see agent/link.py
    reserve                         room that is given up so that the state can always be saved
"""

from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.state import AgentState, InstalledRelease, SlotName, from_store, slot
from edgefleet.base.errors import DeviceError, InternalError
from edgefleet.base.storage import Storage

STATE: Final = "state.json"
DAMAGED_STATE: Final = "state.json.damaged"
POINTER: Final = "active"
RESERVE: Final = "reserve"
MODEL: Final[FileName] = "model.onnx"
GOLDEN: Final[FileName] = "golden.npz"
MANIFEST: Final = "manifest.json"
NAMES: Final[tuple[SlotName, ...]] = ("a", "b")


def folder(name: SlotName) -> str:
    return f"slots/{name}"


def path(name: SlotName, file: str) -> str:
    return f"slots/{name}/{file}"


class Slots:
    """State, pointer and slots. Every write is whole and durable when its call returns."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._stored = storage.read(STATE)

    def load(self) -> AgentState | None:
        """The stored state; None when there is none.

        A damaged one is moved aside, for an engineer to look at, and is as good as none.
        """
        if self._stored is None:
            return None
        try:
            return from_store(self._stored)
        except InternalError:
            self.storage.rename(STATE, DAMAGED_STATE)
            self._stored = None
            return None

    def save(self, data: bytes) -> bool:
        """Store the state; True when there was something to write.

        Where the disk is full the reserve is given up for it. Raises DeviceError ``disk_full`` when
        even that is not enough.
        """
        if data == self._stored:
            return False
        self._write(STATE, data)
        self._stored = data
        return True

    def pointer(self) -> SlotName | None:
        """What the pointer file says."""
        said = self.storage.read(POINTER)
        return next((name for name in NAMES if said == name.encode()), None)

    def move_pointer(self, name: SlotName | None) -> None:
        """Let the pointer file name the slot. Raises DeviceError ``disk_full``."""
        if name is None:
            self.storage.remove(POINTER)
        elif self.pointer() != name:
            self._write(POINTER, name.encode())

    def holds(self, name: SlotName, held: InstalledRelease) -> bool:
        """True when the slot's files have the digests of ``held``. Reads them all."""
        return (
            self.storage.digest(path(name, MODEL)) == held.variant.artifact.sha256
            and self.storage.digest(path(name, GOLDEN)) == held.golden.artifact.sha256
        )

    def whole(self, state: AgentState) -> tuple[SlotName, ...]:
        """Slots whose files are what the state says."""
        return tuple(
            name
            for name in NAMES
            if (held := slot(state, name).held) is not None and self.holds(name, held)
        )

    def remove(self, name: SlotName) -> None:
        self.storage.remove(folder(name))

    def make_reserve(self) -> None:
        """Set room aside while there is plenty."""
        size = self.storage.size(RESERVE)
        if size is None and self.storage.free_bytes() > limits.DISK_MARGIN_BYTES:
            self.storage.write(RESERVE, bytes(limits.RESERVE_BYTES))

    def _write(self, target: str, data: bytes) -> None:
        try:
            self.storage.write(target, data)
        except DeviceError:
            self.storage.remove(RESERVE)
            self.storage.write(target, data)
