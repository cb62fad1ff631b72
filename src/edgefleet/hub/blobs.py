"""Artifacts in a folder, each file named by the SHA-256 of its bytes.

A file appears under its name whole and durable, or not at all; two writers of the same digest write
the same bytes, so whoever renames last changes nothing.
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
        self._incoming.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():  # by a hub that was killed
            left.unlink()

    def path(self, digest: str) -> Path:
        """Where these bytes lie. Raises OperatorError ``bad_request`` or ``not_found``."""
        place = self._place(digest)
        if not place.is_file():
            raise OperatorError("not_found", f"There is no artifact {digest}.", field="sha256")
        return place

    def size(self, digest: str) -> int | None:
        """Bytes in the artifact, or None when it is not here."""
        try:
            return self._place(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def put(self, digest: str, pieces: AsyncIterator[bytes]) -> int:
        """Keep the bytes that ``pieces`` yields, when they are those of ``digest``: their size.

        Raises PublisherError ``digest_mismatch`` or ``artifact_too_large``, DeviceError
        ``overloaded`` or ``disk_full``; nothing is left behind then, nor when ``pieces`` raises.
        """
        place = self._place(digest)
        if self._uploading >= UPLOADS_AT_ONCE:
            raise DeviceError("overloaded", f"{UPLOADS_AT_ONCE} uploads are under way.")
        self._uploading += 1
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file, _room():
                size, found = await self._copy(file, pieces)
                if found != digest:
                    raise PublisherError(
                        "digest_mismatch", f"The bytes have the digest {found}.", field="sha256"
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
                "bad_request", "A digest is 64 digits, 0-9 and a-f.", field="sha256"
            )
        return self._root / digest[:2] / digest


def too_large(max_bytes: int) -> PublisherError:
    """The refusal of an artifact above ``max_bytes``."""
    return PublisherError("artifact_too_large", f"An artifact may have {max_bytes} bytes.")


def _write(file: BinaryIO, digest: _Digest, data: bytearray) -> None:
    digest.update(data)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _settle(file: BinaryIO, temporary: Path, place: Path) -> None:
    """Make the bytes durable, then their name."""
    os.fsync(file.fileno())
    place.parent.mkdir(exist_ok=True)
    _sync_folder(place.parent.parent)  # always: whoever made the folder may not have come so far
    temporary.chmod(0o444)
    temporary.replace(place)
    _sync_folder(place.parent)


def _forget(temporary: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it has its own name now
        os.unlink(temporary)  # noqa: PTH108 - a name from mkstemp


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _room() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(
                "disk_full",
                "The hub's disk has no room left.",
                hint="Free space on the hub's disk.",
            ) from error
        raise
