"""The interface to the disk. It is small, so that tests can generate every crash state.

Paths are relative, with forward slashes. A write is durable when its call returns. Replacing a file
is atomic.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from edgefleet.base.errors import DeviceError

CHUNK_BYTES: Final = 1 << 20


class Storage(Protocol):
    """The disk operations of the agent. Raises DeviceError ``disk_full`` if no space is left."""

    def read(self, path: str) -> bytes | None:
        """The content of the file. None if the file does not exist."""
        ...

    def size(self, path: str) -> int | None:
        """The size of the file in bytes. None if the file does not exist."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace the file atomically (new file, fsync, rename, fsync of the folder)."""
        ...

    def append(self, path: str, data: bytes) -> None:
        """Append bytes. They are durable when the call returns."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Move a file over another, atomically and durably."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Replace ``target`` by a copy of ``source``, atomically and durably."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with its content. A missing path is no error."""
        ...

    def list(self, folder: str) -> tuple[str, ...]:
        """The sorted names in a folder. Empty if the folder does not exist."""
        ...

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file in hexadecimal. None if the file does not exist."""
        ...

    def free_bytes(self) -> int:
        """Free space, in bytes."""
        ...

    def locate(self, path: str) -> str:
        """The absolute path, for other processes on this device."""
        ...


class FolderStorage:
    """Storage in one folder of the real file system."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._root.mkdir(parents=True, exist_ok=True)

    def read(self, path: str) -> bytes | None:
        try:
            return self._at(path).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int | None:
        try:
            return self._at(path).stat().st_size
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        target = self._at(path)
        temporary = target.with_name(f".{target.name}.new")
        with self._space():
            self._make_folder(target.parent)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)

    def append(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with self._space():
            self._make_folder(target.parent)
            fresh = not target.exists()
            with target.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                _sync_folder(target.parent)

    def rename(self, source: str, target: str) -> None:
        old, new = self._at(source), self._at(target)
        self._make_folder(new.parent)
        old.replace(new)
        _sync_folder(new.parent)
        if old.parent != new.parent:
            _sync_folder(old.parent)

    def copy(self, source: str, target: str) -> None:
        new = self._at(target)
        temporary = new.with_name(f".{new.name}.new")
        with self._space():
            self._make_folder(new.parent)
            with self._at(source).open("rb") as old, temporary.open("wb") as file:
                shutil.copyfileobj(old, file, CHUNK_BYTES)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(new)
            _sync_folder(new.parent)

    def remove(self, path: str) -> None:
        target = self._at(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if target.parent.exists():
            _sync_folder(target.parent)

    def list(self, folder: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(entry.name for entry in self._at(folder).iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def digest(self, path: str) -> str | None:
        found = sha256()
        try:
            with self._at(path).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    found.update(chunk)
        except FileNotFoundError:
            return None
        return found.hexdigest()

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._root).free

    def locate(self, path: str) -> str:
        return str(self._at(path))

    def _at(self, path: str) -> Path:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts:
            msg = f"the path leads out of the storage folder: {path!r}"
            raise ValueError(msg)
        return self._root.joinpath(*parts)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its missing parents durably."""
        missing = [folder, *folder.parents]
        missing = [
            path for path in missing if path.is_relative_to(self._root) and not path.exists()
        ]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            _sync_folder(path.parent)

    @staticmethod
    @contextlib.contextmanager
    def _space() -> Generator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DeviceError("disk_full", "The disk is full.") from error
            raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
