"""A disk in memory whose power can fail before, within and after any operation."""

from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar

from edgefleet.base.errors import DeviceError

R = TypeVar("R")


class PowerCut(BaseException):
    """The process ends here: nothing after this line ran."""


class When(StrEnum):
    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class MemoryStorage:
    """base.storage.Storage in a dict.

    ``cut_at`` is the operation (counted from 0, reads too) at which the power fails. A cut within a
    write or copy leaves the old file and a half-written new one beside it, as FolderStorage would;
    within an append half of the bytes; within the removal of a folder half of its files.
    """

    def __init__(self, capacity_bytes: int = 1 << 40) -> None:
        self.files: dict[str, bytes] = {}
        self.capacity_bytes = capacity_bytes
        self.operations: list[str] = []
        self.cut_at: int | None = None
        self.cut_when = When.BEFORE

    def power_on(self) -> None:
        """Restore the power. The files remain."""
        self.operations.clear()
        self.cut_at = None

    def read(self, path: str) -> bytes | None:
        return self._do(f"read {path}", lambda: self.files.get(path))

    def size(self, path: str) -> int | None:
        return self._do(f"size {path}", lambda: _size(self.files.get(path)))

    def digest(self, path: str) -> str | None:
        data = self._do(f"digest {path}", lambda: self.files.get(path))
        return None if data is None else sha256(data).hexdigest()

    def write(self, path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.new".lstrip("/")

        def half() -> None:
            self._put(temporary, data[: len(data) // 2])

        def whole() -> None:
            self._put(path, data)
            self.files.pop(temporary, None)

        self._do(f"write {path}", whole, half)

    def append(self, path: str, data: bytes) -> None:
        before = self.files.get(path, b"")
        self._do(
            f"append {path}",
            lambda: self._put(path, before + data),
            lambda: self._put(path, before + data[: len(data) // 2]),
        )

    def rename(self, source: str, target: str) -> None:
        def whole() -> None:
            moved = [name for name in self.files if name == source or name.startswith(f"{source}/")]
            for name in moved:
                self.files[target + name.removeprefix(source)] = self.files.pop(name)

        self._do(f"rename {source}", whole)

    def copy(self, source: str, target: str) -> None:
        self.write(target, self.files[source])

    def remove(self, path: str) -> None:
        found = [name for name in self.files if name == path or name.startswith(f"{path}/")]

        def drop(names: list[str]) -> None:
            for name in names:
                del self.files[name]

        self._do(f"remove {path}", lambda: drop(found), lambda: drop(found[: len(found) // 2]))

    def list(self, folder: str) -> tuple[str, ...]:
        prefix = f"{folder}/"
        names = {
            name.removeprefix(prefix).partition("/")[0]
            for name in self.files
            if name.startswith(prefix)
        }
        return tuple(sorted(names))

    def free_bytes(self) -> int:
        return self.capacity_bytes - sum(map(len, self.files.values()))

    def locate(self, path: str) -> str:
        return f"/memory/{path}"

    def _put(self, path: str, data: bytes) -> None:
        if self.free_bytes() + len(self.files.get(path, b"")) < len(data):
            raise DeviceError("disk_full", "The disk in memory has no room left.")
        self.files[path] = data

    def _do(
        self, name: str, whole: Callable[[], R], half: Callable[[], object] = lambda: None
    ) -> R:
        place = len(self.operations)
        self.operations.append(name)
        if place != self.cut_at:
            return whole()
        if self.cut_when is When.WITHIN:
            half()
        elif self.cut_when is When.AFTER:
            whole()
        raise PowerCut


def _size(data: bytes | None) -> int | None:
    return None if data is None else len(data)
