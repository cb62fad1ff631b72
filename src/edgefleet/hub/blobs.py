"""Artifacts in a folder, each file named by the SHA-256 of its bytes.

A file gets its name only when it is complete and durable. Two uploads of one digest have the same
bytes, so the order of their renames does not matter.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from edgefleet.base.durable import sync_folder
from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.limits import UPLOADS_AT_ONCE
from edgefleet.hub.part_files import PartFiles, room

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = "incoming"


class Blobs:
    """A content-addressed folder."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._parts = PartFiles(root / _INCOMING, max_bytes=max_bytes)
        self._uploading = 0

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
