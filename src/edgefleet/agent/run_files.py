"""The files of the running serving process: its control socket, pid, log and marks.

They are in the data folder. If that cannot be written when the process starts, they are in a folder
of the same user in memory, so serving does not depend on the disk. No file is needed after the
process has ended, and none of them ends the agent by an error.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgefleet.base.errors import DeviceError
from edgefleet.base.storage import FolderStorage, Storage

_MEMORY: Final = ("/run", "/dev/shm")  # noqa: S108 - the folder below has an owner and mode 0700


class RunFiles:
    """The files of one device's serving process, in the folder that is in use."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._place = storage

    def locate(self, name: str) -> str:
        return self._place.locate(name)

    def read(self, name: str) -> bytes | None:
        """The content of the file. None if it is missing or cannot be read."""
        try:
            return self._place.read(name)
        except DeviceError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write the file, if that is possible."""
        with contextlib.suppress(DeviceError):
            self._place.write(name, data)

    def remove(self, name: str) -> None:
        """Remove the file, if that is possible."""
        with contextlib.suppress(DeviceError):
            self._place.remove(name)

    def find(self, is_used: Callable[[], bool]) -> None:
        """Use the folder in memory if ``is_used`` is true of it, and not of the data folder."""
        if is_used():
            return
        for place in _in_memory(self._storage, make=False):
            self._place = place
            if is_used():
                return
        self._place = self._storage

    def renew(self, name: str) -> None:
        """Use the first folder in which ``name`` can be made. Raises DeviceError if none can."""
        failure: DeviceError | None = None
        for place in (self._storage, *_in_memory(self._storage, make=True)):
            try:
                place.remove(name)
                place.write(name, b"")
                place.remove(name)
            except DeviceError as error:
                failure = failure or error
                continue
            self._place = place
            return
        if failure is not None:
            raise failure


def _in_memory(storage: Storage, *, make: bool) -> Iterator[Storage]:
    """The folders of this user for this data folder, on file systems that are not the disk."""
    name = f"edgefleet-{os.getuid()}-{sha256(storage.locate('.').encode()).hexdigest()[:12]}"
    for parent in (os.environ.get("XDG_RUNTIME_DIR", ""), *_MEMORY, tempfile.gettempdir()):
        folder = Path(parent) / name
        if parent and _is_own(folder, make=make):
            with contextlib.suppress(DeviceError):
                yield FolderStorage(folder)


def _is_own(folder: Path, *, make: bool) -> bool:
    """Whether the folder exists, and only this user may use it. With ``make`` it is made."""
    try:
        if make:
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    is_private = not stat.S_IMODE(found.st_mode) & 0o077
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and is_private
