"""The agent's files.

::

    state.json                      the core's state, see agent/state.py
    active                          the pointer: the name of the active slot
    slots/a|b/manifest.json         the signed envelope
    slots/a|b/model.onnx
    slots/a|b/golden.npz
    slots/a|b/<file>.<digest>.part  a partial download
    credential.json                 see agent/link.py
    reserve                         reserved space, freed if the disk is too full for the state
"""

from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.state import AgentState, InstalledRelease, SlotName, slot
from edgefleet.agent.stored import from_store
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
    """State, pointer and slots. Every write is atomic, and durable when its call returns."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._stored = storage.read(STATE)

    def load(self) -> AgentState | None:
        """The stored state. None if it is missing or damaged.

        A damaged state file is renamed to ``state.json.damaged``, for inspection.
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
        """Store the state. Returns whether it had changed.

        If the disk is full, the reserve is freed. Raises DeviceError ``disk_full`` if that is not
        enough.
        """
        if data == self._stored:
            return False
        self._write(STATE, data)
        self._stored = data
        return True

    def pointer(self) -> SlotName | None:
        """The slot in the pointer file. None if the file is missing or invalid."""
        content = self.storage.read(POINTER)
        return next((name for name in NAMES if content == name.encode()), None)

    def move_pointer(self, name: SlotName | None) -> None:
        """Write the slot's name into the pointer file. Raises DeviceError ``disk_full``."""
        if name is None:
            self.storage.remove(POINTER)
        elif self.pointer() != name:
            self._write(POINTER, name.encode())

    def has_files_of(self, name: SlotName, installed: InstalledRelease) -> bool:
        """Whether the slot's files have the digests of ``installed``. Reads all files."""
        return (
            self.storage.digest(path(name, MODEL)) == installed.variant.artifact.sha256
            and self.storage.digest(path(name, GOLDEN)) == installed.golden.artifact.sha256
        )

    def whole(self, state: AgentState) -> tuple[SlotName, ...]:
        """Slots whose files have the digests in the state."""
        return tuple(
            name
            for name in NAMES
            if (installed := slot(state, name).installed) is not None
            and self.has_files_of(name, installed)
        )

    def remove(self, name: SlotName) -> None:
        self.storage.remove(folder(name))

    def make_reserve(self) -> None:
        """Reserve space while the disk has enough."""
        size = self.storage.size(RESERVE)
        if size is None and self.storage.free_bytes() > limits.DISK_MARGIN_BYTES:
            self.storage.write(RESERVE, bytes(limits.RESERVE_BYTES))

    def _write(self, target: str, data: bytes) -> None:
        try:
            self.storage.write(target, data)
        except DeviceError:
            self.storage.remove(RESERVE)
            self.storage.write(target, data)
