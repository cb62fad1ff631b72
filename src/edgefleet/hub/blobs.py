"""Artifacts in a folder, each file named by the SHA-256 of its bytes.

A file gets its name only when it is complete and durable. Two uploads of one digest have the same
bytes, so the order of their renames does not matter.
"""

import asyncio
import contextlib
import errno
import os
import re
import tempfile
from collections.abc import AsyncIterator, Generator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from edgefleet.base.durable import sync_folder
from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.hub.limits import COPY_BYTES, UPLOADS_AT_ONCE

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = "incoming"


class _Digest(Protocol):
    def update(self, data: bytearray, /) -> None: ...


class Blobs:
    """A content-addressed folder."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._max_bytes = max_bytes
        self._uploading = 0
        with contextlib.suppress(OSError):  # a full or read-only disk; ``put`` says so
            self._incoming.mkdir(parents=True, exist_ok=True)
            for left in self._incoming.iterdir():  # uploads of a hub that was killed
                left.unlink()

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

    async def put(self, digest: str, pieces: AsyncIterator[bytes]) -> int:
        """Store the bytes from ``pieces`` if their digest is ``digest``. Returns their size.

        Raises PublisherError ``digest_mismatch`` or ``artifact_too_large``, DeviceError
        ``overloaded``, ``disk_full`` or ``disk_readonly``, or the error of ``pieces``. After an
        error no file remains.
        """
        place = self._place(digest)
        if self._uploading >= UPLOADS_AT_ONCE:
            raise DeviceError(
                "overloaded", f"{UPLOADS_AT_ONCE} uploads are in progress, the limit."
            )
        self._uploading += 1
        name = ""
        try:
            with _room():
                self._incoming.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=self._incoming)
            with os.fdopen(handle, "wb", buffering=0) as file, _room():
                size, found = await self._copy(file, pieces)
                if found != digest:
                    raise PublisherError(
                        "digest_mismatch",
                        f"The bytes have the digest {found}, not {digest}.",
                        field="sha256",
                    )
                await asyncio.to_thread(_settle, file, Path(name), place)
            return size
        finally:
            self._uploading -= 1
            _forget(name)

    async def _copy(self, file: BinaryIO, pieces: AsyncIterator[bytes]) -> tuple[int, str]:
        size, digest, waiting = 0, sha256(), bytearray()
        async for piece in pieces:
            size += len(piece)
            if size > self._max_bytes:
                raise too_large(self._max_bytes)
            waiting += piece
            if len(waiting) >= COPY_BYTES:
                full, waiting = waiting, bytearray()
                await asyncio.to_thread(_write, file, digest, full)
        await asyncio.to_thread(_write, file, digest, waiting)
        return size, digest.hexdigest()

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise OperatorError(
                "bad_request", "A digest has 64 characters, 0-9 and a-f.", field="sha256"
            )
        return self._root / digest[:2] / digest


def too_large(max_bytes: int) -> PublisherError:
    """The error for an artifact above ``max_bytes``."""
    return PublisherError("artifact_too_large", f"The artifact is larger than {max_bytes} bytes.")


def _write(file: BinaryIO, digest: _Digest, data: bytearray) -> None:
    digest.update(data)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _settle(file: BinaryIO, temporary: Path, place: Path) -> None:
    """Sync the bytes to the disk, then rename the file and sync the rename."""
    os.fsync(file.fileno())
    place.parent.mkdir(exist_ok=True)
    sync_folder(place.parent.parent)  # always: the upload that created it may not have synced yet
    temporary.chmod(0o444)
    temporary.replace(place)
    sync_folder(place.parent)


def _forget(temporary: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it was renamed, or never made
        os.unlink(temporary)  # noqa: PTH108 - a name from mkstemp


@contextlib.contextmanager
def _room() -> Generator[None]:
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
