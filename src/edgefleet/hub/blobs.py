"""Artifacts in a folder, each file named by the SHA-256 of its bytes.

A file gets its name only when it is complete and durable. Two uploads of one digest have the same
bytes, so the order of their renames does not matter.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterable
from pathlib import Path
from typing import Final

from edgefleet.base.durable import sync_folder
from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.limits import UPLOADS_AT_ONCE
from edgefleet.hub.part_files import PartFiles, room
from edgefleet.hub.unneeded import StoredFile

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = "incoming"


class Blobs:
    """A content-addressed folder."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._parts = PartFiles(root / _INCOMING, max_bytes=max_bytes)
        self._uploading = 0
        self.in_use: Counter[str] = Counter()

    def path(self, digest: str) -> Path:
        """The path of the artifact. Raises OperatorError ``bad_request`` or ``not_found``."""
        place = self._place(digest)
        if not place.is_file():
            raise OperatorError("not_found", f"There is no artifact {digest}.", field="sha256")
        return place

    def size(self, digest: str) -> int | None:
        """Size of the artifact in bytes. None if it is not here."""
        try:
            return self._place(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def put(
        self,
        digest: str,
        pieces: AsyncIterator[bytes],
        *,
        start: int = 0,
        announced_bytes: int | None = None,
    ) -> int:
        """Store the bytes from ``pieces`` if their digest is ``digest``. Returns the whole size.

        ``start`` bytes are there already, see ``uploaded``; ``announced_bytes`` will follow. After
        an error of ``pieces``, and after a cancellation, the upload can be continued. Any other
        error leaves no file.

        Raises PublisherError ``digest_mismatch`` or ``artifact_too_large``, DeviceError
        ``overloaded``, ``range_invalid``, ``disk_full`` or ``disk_readonly``, or the error of
        ``pieces``.
        """
        place = self._place(digest)
        if self._uploading >= UPLOADS_AT_ONCE:
            raise DeviceError(
                "overloaded", f"{UPLOADS_AT_ONCE} uploads are in progress, the limit."
            )
        self._uploading += 1
        try:
            self._parts.check_free(announced_bytes or 0)
            with self._parts.upload(digest, start) as path:
                size = await self._parts.receive(path, digest, pieces, start)
                with room():
                    await asyncio.to_thread(_settle, path, place)
            return size
        finally:
            self._uploading -= 1

    def uploaded(self, digest: str) -> int:
        """Bytes of the artifact that an interrupted upload has left: the next one continues there.

        Raises OperatorError ``bad_request``.
        """
        self._place(digest)
        return self._parts.size(digest)

    @contextlib.contextmanager
    def used(self, digests: Iterable[str]) -> Generator[None]:
        """The time in which these artifacts may not be removed, as a release is published."""
        counted = Counter(digests)
        self.in_use.update(counted)
        try:
            yield
        finally:
            self.in_use -= counted

    def touch(self, digest: str) -> None:
        """A publisher asks for the artifact: keep it as if it had been uploaded now."""
        with contextlib.suppress(OSError):  # a full or read-only disk, on which none is removed
            os.utime(self._place(digest))

    async def stored(self) -> list[StoredFile]:
        """All artifacts. Removes the parts of uploads that were interrupted long ago."""
        return await asyncio.to_thread(self._list)

    def stored_file(self, digest: str) -> StoredFile | None:
        """None if the artifact is not here."""
        try:
            found = self._place(digest).stat()
        except FileNotFoundError:
            return None
        return StoredFile(digest, found.st_size, found.st_mtime)

    async def remove(self, digest: str) -> None:
        """Remove an artifact. Its name is gone at once; its bytes after a kill, too."""
        gone = self._parts.doomed(digest)
        self._place(digest).replace(gone)
        await asyncio.to_thread(gone.unlink)  # of a large file it takes long

    def free_share(self) -> float:
        """The part of the disk that is free, from 0 to 1. 1 if it is not known."""
        try:
            disk = shutil.disk_usage(self._root)
        except OSError:
            return 1.0
        return disk.free / disk.total

    def _list(self) -> list[StoredFile]:
        self._parts.forget_old()
        names = (path.name for path in self._root.glob("??/*"))
        found = (self.stored_file(name) for name in names if _DIGEST.fullmatch(name))
        return [file for file in found if file is not None]

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise OperatorError(
                "bad_request", "A digest has 64 characters, 0-9 and a-f.", field="sha256"
            )
        return self._root / digest[:2] / digest


def _settle(complete: Path, place: Path) -> None:
    """Give a file that is on the disk its name, and sync the name."""
    place.parent.mkdir(exist_ok=True)
    sync_folder(place.parent.parent)  # always: the upload that created it may not have synced yet
    complete.chmod(0o444)
    complete.replace(place)
    sync_folder(place.parent)
