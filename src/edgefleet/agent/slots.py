"""The agent's files.

::

    state.json                             the core's state, see agent/state.py
    active                                 the pointer: a line "MODEL SLOT" for each model
    models/MODEL/a|b/manifest.json         the signed envelope
    models/MODEL/a|b/model.onnx
    models/MODEL/a|b/golden.npz
    models/MODEL/a|b/<file>.<digest>.part  a partial download
    credential.json                        see agent/link.py
    reserve                                reserved space, freed if the state finds no room

One state file and one pointer file name all models. With a file for each model, a power cut between
two of them would leave a mixture of releases that no rollout asked for.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.state import AgentState, InstalledRelease, SlotName, slot
from edgefleet.agent.stored import ONE_MODEL, OneModelState, from_store, upgraded, version_of
from edgefleet.base.errors import DeviceError, InternalError
from edgefleet.base.ids import is_name
from edgefleet.base.storage import Storage
from edgefleet.protocol.wire import decode

STATE: Final = "state.json"
DAMAGED_STATE: Final = "state.json.damaged"
POINTER: Final = "active"
RESERVE: Final = "reserve"
MODEL: Final[FileName] = "model.onnx"
GOLDEN: Final[FileName] = "golden.npz"
MANIFEST: Final = "manifest.json"
NEXT_MANIFEST: Final = "manifest.next.json"  # until the first file of its release is downloaded
MODELS: Final = "models"
OLD_SLOTS: Final = "slots"  # of a device with one model, before version 3 of the state
NAMES: Final[tuple[SlotName, ...]] = ("a", "b")


def folder(model: str, name: SlotName) -> str:
    return f"{MODELS}/{model}/{name}"


def path(model: str, name: SlotName, file: str) -> str:
    return f"{MODELS}/{model}/{name}/{file}"


def pointer_text(slots: Mapping[str, SlotName]) -> bytes:
    """The content of the pointer file."""
    return "".join(f"{model} {slots[model]}\n" for model in sorted(slots)).encode()


def read_pointer(content: bytes) -> dict[str, SlotName]:
    """The slots in a pointer file. Lines that name no valid model and slot are ignored."""
    found: dict[str, SlotName] = {}
    for line in content.decode(errors="replace").splitlines():
        model, _, text = line.partition(" ")
        if text in NAMES and is_name(model):
            found[model] = "a" if text == "a" else "b"
    return found


class Slots:
    """State, pointer and slots. Every write is atomic, and durable when its call returns."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._stored = storage.read(STATE)

    def load(self) -> AgentState | None:
        """The stored state. None if it is missing or damaged.

        A damaged state file is renamed to ``state.json.damaged``, for inspection. The slots of a
        state of version 2 are moved to their new places. Its file stays until the next ``save``, so
        after a power cut in between the upgrade starts again.
        """
        if self._stored is None:
            return None
        try:
            if version_of(self._stored) == ONE_MODEL:
                return self._upgrade(decode(self._stored, OneModelState, code="internal"))
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

    def pointer(self) -> dict[str, SlotName]:
        """The slots in the pointer file. Empty if the file is missing."""
        return read_pointer(self.storage.read(POINTER) or b"")

    def move_pointer(self, slots: Mapping[str, SlotName]) -> None:
        """Write the confirmed slots into the pointer file. Raises DeviceError ``disk_full``."""
        text = pointer_text(slots)
        if not slots:
            self.storage.remove(POINTER)
        elif self.storage.read(POINTER) != text:
            self._write(POINTER, text)

    def has_files_of(self, name: SlotName, installed: InstalledRelease) -> bool:
        """Whether the slot's files have the digests of ``installed``. Reads all files."""
        model = installed.model
        return (
            self.storage.digest(path(model, name, MODEL)) == installed.variant.artifact.sha256
            and self.storage.digest(path(model, name, GOLDEN)) == installed.golden.artifact.sha256
        )

    def whole(self, state: AgentState) -> dict[str, tuple[SlotName, ...]]:
        """For each model the slots whose files have the digests in the state."""
        return {
            model: tuple(
                name
                for name in NAMES
                if (installed := slot(mine, name).installed) is not None
                and self.has_files_of(name, installed)
            )
            for model, mine in state.models.items()
        }

    def remove(self, model: str, name: SlotName) -> None:
        self.storage.remove(folder(model, name))

    def make_reserve(self) -> None:
        """Reserve space while the disk has enough."""
        size = self.storage.size(RESERVE)
        if size is None and self.storage.free_bytes() > limits.DISK_MARGIN_BYTES:
            self.storage.write(RESERVE, bytes(limits.RESERVE_BYTES))

    def _upgrade(self, old: OneModelState) -> AgentState:
        for name in NAMES:
            before, model = f"{OLD_SLOTS}/{name}", old.model_of(name)
            if model is not None and self.storage.list(before):
                self.storage.remove(folder(model, name))  # of an agent that was downgraded before
                self.storage.rename(before, folder(model, name))
        self.storage.remove(OLD_SLOTS)
        return upgraded(old)

    def _write(self, target: str, data: bytes) -> None:
        try:
            self.storage.write(target, data)
        except DeviceError:
            self.storage.remove(RESERVE)
            self.storage.write(target, data)
