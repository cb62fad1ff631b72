"""Bringing a release here: its manifest, and its files a range at a time.

Memory is bounded by ``FLUSH_BYTES``; what is already on the disk is never asked for again, be it in
a download that was cut off or in the other slot.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.recover import Open
from edgefleet.agent.slots import MANIFEST, folder, path
from edgefleet.agent.state import SlotName, other
from edgefleet.agent.worker import Stopped, Token
from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError, NetworkError, PublisherError
from edgefleet.base.network import Link
from edgefleet.base.storage import Storage
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.protocol.wire import error_from_answer

MANIFEST_PATH: Final = "/device/v1/manifests/"
ARTIFACT_PATH: Final = "/device/v1/artifacts/"
_OK, _PARTIAL, _NO_RANGE = 200, 206, 416


class Fetcher:
    """Fetches into the idle slot. Not for several threads at once."""

    def __init__(
        self,
        storage: Storage,
        link: Link,
        headers: Callable[[], Mapping[str, str]],
        clock: Clock,
        *,
        bytes_per_s: int | None = None,
    ) -> None:
        self._storage = storage
        self._link = link
        self._headers = headers
        self._clock = clock
        self._bytes_per_s = bytes_per_s

    def manifest(
        self, slot: SlotName, sha256: str, open_envelope: Open
    ) -> tuple[str, ReleaseManifest]:
        """Get the envelope, check it, keep it. Returns the payload's digest and the manifest.

        Raises PublisherError (``signature_invalid``), NetworkError, DeviceError ``disk_full``.
        """
        answer = self._link.request(
            "GET", MANIFEST_PATH + sha256, headers=self._headers(), timeout_s=limits.REQUEST_S
        )
        if answer.status != _OK:
            raise error_from_answer(answer.status, answer.body)
        if len(answer.body) > limits.MANIFEST_BYTES:
            raise PublisherError("release_file_invalid", "The manifest is too large.")
        opened = open_envelope(answer.body)
        self._storage.write(path(slot, MANIFEST), answer.body)
        return opened

    def file(self, slot: SlotName, file: FileName, artifact: Artifact, token: Token) -> None:
        """Have ``file`` of the slot be the artifact. Nothing is fetched that is here already.

        Raises PublisherError ``digest_mismatch``, DeviceError ``disk_full``, NetworkError, Stopped.
        """
        target = path(slot, file)
        part = f"{target}.{artifact.sha256[:16]}.part"
        if self._storage.digest(target) == artifact.sha256:
            return
        self._make_way(slot, file, part)
        twin = path(other(slot), file)
        if (
            self._storage.size(twin) == artifact.size_bytes
            and self._storage.digest(twin) == artifact.sha256
        ):
            self._make_room(artifact.size_bytes)
            self._storage.copy(twin, target)
            return
        resumed = self._download(part, artifact, token)
        if self._storage.digest(part) != artifact.sha256:
            self._storage.remove(part)
            if not resumed:
                raise _mismatch(file)
            self._download(
                part, artifact, token
            )  # an old part may have been another's: once from zero
            if self._storage.digest(part) != artifact.sha256:
                self._storage.remove(part)
                raise _mismatch(file)
        self._storage.rename(part, target)

    def _make_way(self, slot: SlotName, file: FileName, part: str) -> None:
        """Remove what stands where the file shall be, and downloads of others."""
        for name in self._storage.list(folder(slot)):
            found = path(slot, name)
            if name == file or (name.startswith(f"{file}.") and found != part):
                self._storage.remove(found)

    def _make_room(self, wanted_bytes: int) -> None:
        if self._storage.free_bytes() < wanted_bytes + limits.DISK_MARGIN_BYTES:
            raise DeviceError("disk_full", f"{wanted_bytes} bytes find no room.")

    def _download(self, part: str, artifact: Artifact, token: Token) -> bool:
        """Add what is missing to ``part``; True when there was something to go on from."""
        have = self._storage.size(part) or 0
        if have > artifact.size_bytes:
            self._storage.remove(part)
            have = 0
        resumed = have > 0
        if have == artifact.size_bytes and resumed:
            return True
        self._make_room(artifact.size_bytes - have)
        headers = dict(self._headers())
        if have:
            headers["Range"] = f"bytes={have}-"
        answer = self._link.download(
            ARTIFACT_PATH + artifact.sha256, headers=headers, timeout_s=limits.REQUEST_S
        )
        if answer.status not in (_OK, _PARTIAL):
            body = _beginning(answer.chunks)
            if answer.status == _NO_RANGE:
                self._storage.remove(part)
                raise NetworkError("connection_lost", "The hub has no such range: from the start.")
            raise error_from_answer(answer.status, body)
        if have and answer.status == _OK:
            self._storage.remove(part)
            have, resumed = 0, False
        self._store(part, self._paced(answer.chunks, token), artifact.size_bytes - have)
        return resumed

    def _store(self, part: str, chunks: Iterator[bytes], missing: int) -> None:
        waiting = bytearray()
        try:
            for chunk in chunks:
                missing -= len(chunk)
                if missing < 0:
                    self._storage.remove(part)
                    raise PublisherError("digest_mismatch", "More bytes came than announced.")
                waiting += chunk
                if len(waiting) >= limits.FLUSH_BYTES:
                    self._storage.append(part, bytes(waiting))
                    waiting.clear()
        except (NetworkError, Stopped):
            if waiting:  # keep what came: the next try goes on from there
                self._storage.append(part, bytes(waiting))
            raise
        if waiting or missing == 0:
            self._storage.append(part, bytes(waiting))
        if missing > 0:
            raise NetworkError("connection_lost", f"{missing} bytes are still missing.")

    def _paced(self, chunks: Iterator[bytes], token: Token) -> Iterator[bytes]:
        """The chunks, no faster than allowed. Raises Stopped."""
        started, taken = self._clock.monotonic(), 0
        for chunk in chunks:
            token.check()
            yield chunk
            taken += len(chunk)
            if self._bytes_per_s:
                elapsed_s = self._clock.monotonic() - started
                token.check(wait_s=taken / self._bytes_per_s - elapsed_s)


def _beginning(chunks: Iterator[bytes]) -> bytes:
    """What was said instead of the file; more than a problem takes is not waited for."""
    said = bytearray()
    for chunk in chunks:
        said += chunk
        if len(said) > limits.PROBLEM_BYTES:
            break
    if close := getattr(chunks, "close", None):
        close()
    return bytes(said)


def _mismatch(file: FileName) -> PublisherError:
    return PublisherError("digest_mismatch", f"{file} does not have the digest announced.")
