"""Files of uploads in progress. An interrupted upload is continued, also by a hub started again.

A part is named by the digest of the whole artifact. The bytes are hashed while they are written;
those of an earlier upload are read and hashed first, so the digest covers what is on the disk.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from edgefleet.base.errors import DeviceError, EdgefleetError, PublisherError
from edgefleet.hub.limits import COPY_BYTES, FREE_BYTES, FREE_SHARE, PART_KEPT_S, PARTS_KEPT

T = TypeVar("T")
PART: Final = ".part"
_SPOILED: Final = frozenset({"digest_mismatch", "artifact_too_large", "disk_full", "disk_readonly"})


class _Digest(Protocol):
    def update(self, data: bytes | bytearray, /) -> None: ...


class PartFiles:
    """The folder of the parts. ``max_bytes`` is the largest artifact."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._number = 0
        self._busy: set[str] = set()
        with contextlib.suppress(OSError):  # a full or read-only disk; an upload says so
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.iterdir():  # of a hub that was killed
                if left.suffix != PART:
                    left.unlink()

    def size(self, digest: str) -> int:
        """Bytes of the artifact from which an upload can continue. 0 while another one runs."""
        if digest in self._busy:
            return 0
        try:
            return (self._folder / f"{digest}{PART}").stat().st_size
        except OSError:
            return 0

    def idle(self) -> list[Path]:
        """The parts of interrupted uploads, the one that was written last first."""
        parts = (part for part in self._folder.glob(f"*{PART}") if part.stem not in self._busy)
        return sorted(parts, key=lambda part: part.stat().st_mtime, reverse=True)

    def forget_old(self) -> None:
        """Remove the parts of uploads that were interrupted ``PART_KEPT_S`` ago."""
        for part in self.idle():
            if time.time() - part.stat().st_mtime > PART_KEPT_S:
                part.unlink(missing_ok=True)

    def doomed(self, digest: str) -> Path:
        """The name of a file that is being removed. A start of the hub removes it, too."""
        self._number += 1
        return self._folder / f"{digest}.{self._number}"

    @contextlib.contextmanager
    def upload(self, digest: str, start: int) -> Generator[Path]:
        """The file for one upload, with the bytes before ``start``.

        If another upload of the artifact runs, the file is one of its own, which is removed at the
        end. Raises DeviceError ``overloaded`` if that other upload has the bytes before ``start``.
        """
        if digest in self._busy:
            if start:
                raise DeviceError("overloaded", f"Another upload of {digest} is in progress.")
            other = self.doomed(digest)
            try:
                yield other
            finally:
                other.unlink(missing_ok=True)
            return
        self._busy.add(digest)
        part = self._folder / f"{digest}{PART}"
        try:
            yield part
        except EdgefleetError as error:
            if error.code in _SPOILED:
                part.unlink(missing_ok=True)
            raise
        finally:
            self._busy.discard(digest)

    async def receive(
        self, path: Path, digest: str, pieces: AsyncIterator[bytes], start: int
    ) -> int:
        """Write ``pieces`` at ``start`` of the file. Returns the size of the whole, in bytes.

        The file is complete and of this digest then. Raises as ``Blobs.put`` does.
        """
        with room():
            self._folder.mkdir(parents=True, exist_ok=True)
            for part in self.idle()[PARTS_KEPT:]:
                part.unlink(missing_ok=True)
            file = open_part(path)
        with file, room():
            size, found = await self._copy(file, pieces, start)
        if found != digest:
            raise PublisherError(
                "digest_mismatch",
                f"The bytes have the digest {found}, not {digest}.",
                field="sha256",
            )
        return size

    def check_free(self, more_bytes: int) -> None:
        """Raise DeviceError ``disk_full`` if so many bytes leave too few for the database."""
        try:
            disk = shutil.disk_usage(self._folder)
        except OSError:
            return  # the upload itself says so
        least = min(FREE_BYTES, int(disk.total * FREE_SHARE))
        if disk.free - more_bytes < least:
            raise DeviceError(
                "disk_full",
                f"The hub's disk has {disk.free:,} bytes free, of which {least:,} are kept for the "
                f"database: {more_bytes:,} bytes have no room.",
                hint="Free space on the hub's disk: `edgefleet hub gc`.",
            )

    async def _copy(
        self, file: BinaryIO, pieces: AsyncIterator[bytes], start: int
    ) -> tuple[int, str]:
        size, digest, waiting = start, sha256(), bytearray()
        await _in_thread(lambda: _continue_at(file, digest, start))
        async for piece in pieces:
            size += len(piece)
            if size > self._max_bytes:
                raise too_large(self._max_bytes)
            waiting += piece
            if len(waiting) >= COPY_BYTES:
                full, waiting = waiting, bytearray()
                await _in_thread(lambda full=full: self._write(file, digest, full))  # type: ignore[misc]
        await _in_thread(lambda: self._write(file, digest, waiting))
        await _in_thread(lambda: os.fsync(file.fileno()))
        return size, digest.hexdigest()

    def _write(self, file: BinaryIO, digest: _Digest, data: bytearray) -> None:
        self.check_free(len(data))
        digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def open_part(path: Path) -> BinaryIO:
    """The file for reading and writing. Its bytes are kept."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)


def too_large(max_bytes: int) -> PublisherError:
    """The error for an artifact above ``max_bytes``."""
    return PublisherError("artifact_too_large", f"The artifact is larger than {max_bytes} bytes.")


@contextlib.contextmanager
def room() -> Generator[None]:
    """Errors of the disk as typed errors: ``disk_full`` and ``disk_readonly``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(
                "disk_full",
                "The hub's disk is full.",
                hint="Free space on the hub's disk.",
            ) from error
        if error.errno == errno.EROFS:
            raise DeviceError(
                "disk_readonly",
                "The hub's disk is read-only.",
                hint="Mount the hub's disk for writing.",
            ) from error
        raise


def _continue_at(file: BinaryIO, digest: _Digest, start: int) -> None:
    """Hash the bytes before ``start``, and cut off all others."""
    have = os.fstat(file.fileno()).st_size
    if have < start:
        raise DeviceError(
            "range_invalid",
            f"The upload begins at {start}, and the hub has {have} bytes of the artifact.",
            field="content-range",
            hint="Ask with HEAD for Upload-Offset, and continue there.",
        )
    left = start
    while left:
        piece = file.read(min(COPY_BYTES, left))
        digest.update(piece)
        left -= len(piece)
    file.truncate(start)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread. A cancellation waits for its end: it uses an open file."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
