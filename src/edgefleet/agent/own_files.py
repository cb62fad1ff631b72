"""The agent's own small files: a digest in each, and two copies.

A file is its content, then a last line ``sha256:<digest of the content>``. A copy whose digest is
wrong, that is cut, or that cannot be read counts as missing. The second copy is then used, and the
next write replaces both. A file of an agent that wrote no digest is read as it is.
"""

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from edgefleet.base.errors import DeviceError
from edgefleet.base.storage import Storage

_MARK: Final = b"\nsha256:"
_DIGEST_BYTES: Final = 64


def sealed(content: bytes) -> bytes:
    """The bytes of a file with ``content``."""
    return content + _MARK + sha256(content).hexdigest().encode() + b"\n"


def unsealed(data: bytes) -> bytes | None:
    """The content of a file. None if its digest is missing or wrong."""
    size = len(data) - len(_MARK) - _DIGEST_BYTES - 1
    content = data[: max(0, size)]
    return content if size >= 0 and sealed(content) == data else None


class OwnFile:
    """Two copies of one file. ``path`` has the first one, ``second`` the other one."""

    def __init__(self, storage: Storage, path: str) -> None:
        self.path = path
        stem, dot, suffix = path.partition(".")
        self.second = f"{stem}.copy{dot}{suffix}"
        self._storage = storage

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """The content of each copy, the first one first, and whether its digest is right.

        A copy without a right digest is as it was read. It may be that of an older agent.
        """
        for data in self._copies():
            content = unsealed(data)
            yield (data, False) if content is None else (content, True)

    def content(self) -> bytes | None:
        """The best content: one with a right digest if there is any. None without a copy."""
        found = sorted(self.contents(), key=lambda one: not one[1])
        return found[0][0] if found else None

    def is_intact(self, content: bytes) -> bool:
        """Whether both copies have this content."""
        return self._copies() == [sealed(content)] * 2

    def exists(self) -> bool:
        return bool(self._copies())

    def write(self, content: bytes) -> None:
        """Write both copies. Each write is atomic. Raises DeviceError."""
        data = sealed(content)
        for path in (self.path, self.second):
            try:
                self._storage.write(path, data)
            except DeviceError as error:
                if error.code != "disk_failed":
                    raise
                self._storage.remove(path)  # something else has its place, such as a folder
                self._storage.write(path, data)

    def repair(self) -> None:
        """Write a copy that is damaged or missing again, if the disk can be written."""
        content = self.content()
        if content is not None and not self.is_intact(content):
            with contextlib.suppress(DeviceError):
                self.write(content)

    def remove(self) -> None:
        for path in (self.path, self.second):
            self._storage.remove(path)

    def set_aside(self, name: str) -> None:
        """Rename the first copy to ``name``, for inspection, if the disk can be written."""
        with contextlib.suppress(DeviceError):
            self._storage.rename(self.path, name)

    def _copies(self) -> list[bytes]:
        found: list[bytes] = []
        for path in (self.path, self.second):
            with contextlib.suppress(DeviceError):  # unreadable counts as missing
                data = self._storage.read(path)
                if data is not None:
                    found.append(data)
        return found
