"""The interface to the disk. It is small, so that tests can generate every crash state.

Paths are relative, with forward slashes. A write is durable when its call returns. Replacing a file
is atomic. Every error of the operating system is a DeviceError:

=================  =========================================================================
``disk_full``      no space is left (ENOSPC, EDQUOT)
``disk_readonly``  the disk, or the data folder, cannot be written (EROFS, EACCES, EPERM)
``disk_failed``    any other error, such as EIO of a worn card; also a file that cannot be read
=================  =========================================================================
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol, TypeVar

from edgefleet.base.durable import sync_folder
from edgefleet.base.errors import DeviceError

T = TypeVar("T")
CHUNK_BYTES: Final = 1 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Storage(Protocol):
    """The disk operations of the agent. Raises DeviceError, see above."""

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
        """Make the folder. Raises DeviceError."""
        self._root = root.absolute()
        with _writing(self._root):
            self._root.mkdir(parents=True, exist_ok=True)

    def read(self, path: str) -> bytes | None:
        return self._found(path, _content)

    def size(self, path: str) -> int | None:
        return self._found(path, lambda file: file.stat().st_size)

    def write(self, path: str, data: bytes) -> None:
        target = self._at(path)
        temporary = target.with_name(f".{target.name}.new")
        with _writing(target):
            self._make_folder(target.parent)
            _make_way(temporary)
            with open_file(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            sync_folder(target.parent)

    def append(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with _writing(target):
            self._make_folder(target.parent)
            fresh = not target.exists()
            with open_file(target, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                sync_folder(target.parent)

    def rename(self, source: str, target: str) -> None:
        old, new = self._at(source), self._at(target)
        with _writing(new):
            self._make_folder(new.parent)
            old.replace(new)
            sync_folder(new.parent)
            if old.parent != new.parent:
                sync_folder(old.parent)

    def copy(self, source: str, target: str) -> None:
        new = self._at(target)
        temporary = new.with_name(f".{new.name}.new")
        with _writing(new):
            self._make_folder(new.parent)
            _make_way(temporary)
            with open_file(self._at(source), "rb") as old, open_file(temporary, "wb") as file:
                shutil.copyfileobj(old, file, CHUNK_BYTES)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(new)
            sync_folder(new.parent)

    def remove(self, path: str) -> None:
        target = self._at(path)
        with _writing(target):
            if not target.exists() and not target.is_symlink():
                return
            _delete(target)
            sync_folder(target.parent)

    def list(self, folder: str) -> tuple[str, ...]:
        names = self._found(folder, lambda found: [entry.name for entry in found.iterdir()])
        return tuple(sorted(names or ()))

    def digest(self, path: str) -> str | None:
        return self._found(path, _digest)

    def free_bytes(self) -> int:
        with _writing(self._root):
            return shutil.disk_usage(self._root).free

    def locate(self, path: str) -> str:
        return str(self._at(path))

    def _found(self, path: str, read: Callable[[Path], T]) -> T | None:
        """The result of ``read``. None for a missing file. Raises DeviceError for a bad one."""
        try:
            return read(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DeviceError(
                "disk_failed", f"{self._at(path)} cannot be read ({error.strerror})."
            ) from error

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
            sync_folder(path.parent)


def open_file(path: Path, mode: Literal["rb", "wb", "ab"]) -> BinaryIO:
    """Open a file without waiting. A damaged disk may have a pipe in its place.

    Raises OSError, also for a pipe that is to be written; one that is read is empty.
    """
    return open(path, mode, opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _content(path: Path) -> bytes:
    with open_file(path, "rb") as file:
        return file.read()


def _make_way(temporary: Path) -> None:
    """Remove what is no file at the place of a temporary file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(temporary.lstat().st_mode):
            _delete(temporary)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    found = sha256()
    with open_file(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> DeviceError:
    code = "disk_readonly" if error.errno in _READ_ONLY else "disk_failed"
    if error.errno in _FULL:
        code = "disk_full"
    return DeviceError(code, f"{path} cannot be written ({error.strerror}).")
