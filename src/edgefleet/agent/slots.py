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
    disk-check                             written to see whether the disk can be written

``state.json``, ``active`` and ``credential.json`` have a digest and a second copy, such as
``state.copy.json``: see agent/own_files.py. One state file and one pointer file name all models.
With a file for each model, a power cut between two of them would leave a mixture of releases that
no rollout asked for.
"""

import contextlib
from collections.abc import Mapping
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.state import AgentState, InstalledRelease, Slot, SlotName, slot
from edgefleet.agent.stored import ONE_MODEL, OneModelState, from_store, upgraded, version_of
from edgefleet.base.errors import DeviceError, InternalError, OperatorError
from edgefleet.base.ids import is_name
from edgefleet.base.storage import Storage
from edgefleet.protocol.wire import decode

STATE: Final = "state.json"
DAMAGED_STATE: Final = "state.json.damaged"
POINTER: Final = "active"
RESERVE: Final = "reserve"
DISK_CHECK: Final = "disk-check"
MODEL: Final[FileName] = "model.onnx"
GOLDEN: Final[FileName] = "golden.npz"
MANIFEST: Final = "manifest.json"
NEXT_MANIFEST: Final = "manifest.next.json"  # until the first file of its release is downloaded
MODELS: Final = "models"
ENGINES: Final = "engines"  # that a runtime builds from models, as TensorRT does
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
        self._state_file = OwnFile(storage, STATE)
        self._pointer_file = OwnFile(storage, POINTER)
        self._frozen: DeviceError | None = None
        content = self._state_file.content()
        self._stored = content if content and self._state_file.is_intact(content) else None

    def load(self) -> AgentState | None:
        """The stored state. None if it is missing, or if both copies are damaged.

        A damaged state file is renamed to ``state.json.damaged``, for inspection. The slots of a
        state of version 2 are moved to their new places. Its file stays until the next ``save``, so
        after a power cut in between the upgrade starts again. Raises OperatorError
        ``store_foreign`` for a state of another version; only one with a digest counts as such.
        """
        for content, has_digest in self._state_file.contents():
            try:
                return self._read(content)
            except (InternalError, DeviceError):  # damaged, or an upgrade that cannot be stored
                continue
            except OperatorError:
                if has_digest:
                    raise
        if self._state_file.exists():
            self._state_file.set_aside(DAMAGED_STATE)
            self._stored = None
        return None

    def freeze(self, reason: DeviceError) -> None:
        """Write nothing any more. ``save`` and ``check_disk`` then raise ``reason``."""
        self._frozen = reason

    def save(self, data: bytes) -> bool:
        """Store the state. Returns whether it had changed.

        If the disk is full, the reserve is freed. Raises DeviceError if the disk cannot be written.
        """
        if data == self._stored:
            return False
        self._stored = None  # until both copies are written
        self._write(self._state_file, data)
        self._stored = data
        return True

    def check_disk(self) -> None:
        """Write a small file. Raises DeviceError if the disk cannot be written."""
        if self._frozen is not None:
            raise self._frozen
        self.storage.write(DISK_CHECK, b"")

    def pointer(self) -> dict[str, SlotName]:
        """The slots in the pointer file. Empty if the file is missing."""
        return read_pointer(self.pointer_content())

    def pointer_content(self) -> bytes:
        """The best content of the pointer file. Empty without one."""
        return self._pointer_file.content() or b""

    def repair_pointer(self) -> None:
        """Write a damaged copy of the pointer file again."""
        if self._frozen is None and self.pointer():
            self._pointer_file.repair()

    def move_pointer(self, slots: Mapping[str, SlotName]) -> None:
        """Write the confirmed slots into the pointer file. Raises DeviceError."""
        text = pointer_text(slots)
        if not slots:
            self._pointer_file.remove()
        elif not self._pointer_file.is_intact(text):
            self._write(self._pointer_file, text)

    def has_model_of(self, name: SlotName, installed: InstalledRelease) -> bool:
        """Whether the slot's model has the digest of ``installed``. Serving needs no other file."""
        model = path(installed.model, name, MODEL)
        return self._digest(model) == installed.variant.artifact.sha256

    def has_files_of(self, name: SlotName, installed: InstalledRelease) -> bool:
        """Whether all files of the slot have the digests of ``installed``."""
        golden = path(installed.model, name, GOLDEN)
        return (
            self.has_model_of(name, installed)
            and self._digest(golden) == installed.golden.artifact.sha256
        )

    def whole(self, state: AgentState) -> dict[str, tuple[SlotName, ...]]:
        """For each model the slots whose files have the digests in the state.

        A proved slot needs its golden set no more, so the model decides alone.
        """
        return {
            model: tuple(name for name in NAMES if self._is_whole(name, slot(mine, name)))
            for model, mine in state.models.items()
        }

    def read(self, file: str) -> bytes | None:
        """The content of a file. None if it is missing or cannot be read."""
        try:
            return self.storage.read(file)
        except DeviceError:
            return None

    def names(self, place: str) -> tuple[str, ...]:
        """The names in a folder. Empty for one that cannot be read."""
        try:
            return self.storage.list(place)
        except DeviceError:
            return ()

    def remove(self, model: str, name: SlotName) -> None:
        self.storage.remove(folder(model, name))

    def make_reserve(self) -> None:
        """Reserve space while the disk has enough, and can be written."""
        with contextlib.suppress(DeviceError):
            size = self.storage.size(RESERVE)
            if size is None and self.storage.free_bytes() > limits.DISK_MARGIN_BYTES:
                self.storage.write(RESERVE, bytes(limits.RESERVE_BYTES))

    def _is_whole(self, name: SlotName, found: Slot) -> bool:
        if found.installed is None:
            return False
        if found.proved:
            return self.has_model_of(name, found.installed)
        return self.has_files_of(name, found.installed)

    def _digest(self, file: str) -> str | None:
        """The digest of a file. None if it is missing or cannot be read."""
        try:
            return self.storage.digest(file)
        except DeviceError:
            return None

    def _read(self, content: bytes) -> AgentState:
        if version_of(content) == ONE_MODEL:
            return self._upgrade(decode(content, OneModelState, code="internal"))
        return from_store(content)

    def _upgrade(self, old: OneModelState) -> AgentState:
        for name in NAMES:
            before, model = f"{OLD_SLOTS}/{name}", old.model_of(name)
            if model is not None and self.storage.list(before):
                self.storage.remove(folder(model, name))  # of an agent that was downgraded before
                self.storage.rename(before, folder(model, name))
        self.storage.remove(OLD_SLOTS)
        return upgraded(old)

    def _write(self, target: OwnFile, data: bytes) -> None:
        if self._frozen is not None:
            raise self._frozen
        try:
            target.write(data)
        except DeviceError as error:
            if error.code != "disk_full":
                raise
            self.storage.remove(RESERVE)
            target.write(data)
