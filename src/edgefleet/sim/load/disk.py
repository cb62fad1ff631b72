"""A device's virtual disk: ``base.storage.Storage`` in memory, with limited space.

Devices share large files (``Shelf``), so that a fleet with one release uses the memory of one copy.
"""

from hashlib import sha256

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.security.signing import OpenedManifest
from edgefleet.sim.limits import SHELVED_BYTES


class Shelf:
    """Files and manifests shared by all devices, one copy each, by their SHA-256."""

    def __init__(self) -> None:
        self._by_digest: dict[str, bytes] = {}
        self._digest_of: dict[int, str] = {}  # by ``id`` of the shared bytes
        self._manifests: dict[str, ReleaseManifest] = {}

    def manifest(self, opened: OpenedManifest) -> ReleaseManifest:
        """The shared copy of a manifest that a device has verified."""
        return self._manifests.setdefault(opened.digest, opened.manifest)

    def put(self, data: bytes) -> bytes:
        """The shared copy of ``data``."""
        if id(data) in self._digest_of:
            return data
        digest = sha256(data).hexdigest()
        kept = self._by_digest.setdefault(digest, data)
        self._digest_of[id(kept)] = digest
        return kept

    def get(self, digest: str) -> bytes | None:
        return self._by_digest.get(digest)

    def digest(self, data: bytes) -> str:
        """SHA-256 of ``data``. Not computed again for a shared copy."""
        return self._digest_of.get(id(data)) or sha256(data).hexdigest()


class VirtualDisk:
    """Storage of one device. ``capacity_bytes`` limits the sizes of the files, without metadata.

    A file is replaced by writing the new one beside it, so both need space for a moment.
    """

    def __init__(self, shelf: Shelf, capacity_bytes: int) -> None:
        self._shelf = shelf
        self._files: dict[str, bytes] = {}
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0

    def read(self, path: str) -> bytes | None:
        return self._files.get(_checked(path))

    def size(self, path: str) -> int | None:
        data = self._files.get(_checked(path))
        return None if data is None else len(data)

    def write(self, path: str, data: bytes) -> None:
        self._check_space(len(data))
        self._put(_checked(path), data)

    def append(self, path: str, data: bytes) -> None:
        self._check_space(len(data))
        self._put(_checked(path), self._files.get(path, b"") + data)

    def rename(self, source: str, target: str) -> None:
        inside = f"{_checked(source)}/"
        moved = [name for name in self._files if name == source or name.startswith(inside)]
        if not moved:
            raise DeviceError("disk_failed", f"There is no {source} to rename.")
        for name in moved:
            data = self._files[name]
            self._drop(name)
            self._put(_checked(target) + name.removeprefix(source), data)

    def remove(self, path: str) -> None:
        inside = f"{_checked(path)}/"
        for name in [name for name in self._files if name == path or name.startswith(inside)]:
            self._drop(name)

    def list(self, folder: str) -> tuple[str, ...]:
        inside = f"{_checked(folder)}/"
        names = {
            name.removeprefix(inside).partition("/")[0]
            for name in self._files
            if name.startswith(inside)
        }
        return tuple(sorted(names))

    def digest(self, path: str) -> str | None:
        data = self._files.get(_checked(path))
        return None if data is None else self._shelf.digest(data)

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.used_bytes)

    def locate(self, path: str) -> str:
        return f"virtual:{_checked(path)}"

    def _check_space(self, size_bytes: int) -> None:
        if size_bytes > self.free_bytes():
            raise DeviceError(
                "disk_full", f"{size_bytes} bytes needed, {self.free_bytes()} bytes free."
            )

    def _put(self, path: str, data: bytes) -> None:
        self._drop(path)
        self._files[path] = self._shelf.put(data) if len(data) >= SHELVED_BYTES else data
        self.used_bytes += len(data)

    def _drop(self, path: str) -> None:
        data = self._files.pop(path, None)
        if data is not None:
            self.used_bytes -= len(data)


def _checked(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        msg = f"the path leads out of the storage folder: {path!r}"
        raise ValueError(msg)
    return path
