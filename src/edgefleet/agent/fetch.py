"""Downloads a release: its manifest and its files.

Memory is limited by ``FLUSH_BYTES``. Bytes on the disk are not downloaded again: a partial download
is resumed, and an equal file of the other slot is copied.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import FileName
from edgefleet.agent.lost_state import Open
from edgefleet.agent.progress import Progress
from edgefleet.agent.slots import MANIFEST, NEXT_MANIFEST, folder, path
from edgefleet.agent.state import SlotName, other
from edgefleet.agent.transfer import BINARY, JSON, DamagedTransferError, check_range, check_type
from edgefleet.agent.worker import Stopped, Token
from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import Link
from edgefleet.base.storage import Storage
from edgefleet.protocol.device import Reason
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.protocol.wire import error_from_answer

MANIFEST_PATH: Final = "/device/v1/manifests/"
ARTIFACT_PATH: Final = "/device/v1/artifacts/"
_OK, _PARTIAL, _NO_RANGE = 200, 206, 416


class Fetcher:
    """Downloads into the idle slot. Not thread-safe."""

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
        self.progress = Progress(clock.monotonic)
        self._bytes_per_s = bytes_per_s

    def manifest(
        self, model: str, slot: SlotName, sha256: str, open_envelope: Open
    ) -> tuple[str, ReleaseManifest]:
        """Download, verify and store the envelope. Returns the payload's digest and the manifest.

        An envelope on the disk is not downloaded again. The slot keeps the envelope of its previous
        release until the first file of the new release is downloaded.

        Raises PublisherError, NetworkError (``transfer_damaged`` for another manifest, and for one
        without a valid signature, as one wrong byte makes it), DeviceError.
        """
        next_envelope = path(model, slot, NEXT_MANIFEST)
        for stored in (next_envelope, path(model, slot, MANIFEST)):
            opened = self._opened(stored, open_envelope)
            if opened is not None and opened[0] == sha256:
                return opened
        answer = self._link.request(
            "GET", MANIFEST_PATH + sha256, headers=self._headers(), timeout_s=limits.REQUEST_S
        )
        if answer.status != _OK:
            raise error_from_answer(answer.status, answer.body)
        check_type(answer.headers, JSON)
        opened = _verified(answer.body, sha256, open_envelope)
        self._storage.write(next_envelope, answer.body)
        return opened

    def space(self, model: str, slot: SlotName) -> tuple[int, int]:
        """Free bytes on the disk, and bytes in the slot that a download replaces or reuses."""
        sizes = (
            self._storage.size(path(model, slot, name))
            for name in self._storage.list(folder(model, slot))
            if name not in (MANIFEST, NEXT_MANIFEST)
        )
        return self._storage.free_bytes(), sum(size or 0 for size in sizes)

    def file(
        self, model: str, slot: SlotName, file: FileName, artifact: Artifact, token: Token
    ) -> None:
        """Make ``file`` of the slot the artifact. Bytes on the disk are not downloaded again.

        Raises NetworkError (``transfer_damaged`` for other bytes), DeviceError, Stopped.
        """
        self._use_next_manifest(model, slot)
        target = path(model, slot, file)
        part = f"{target}.{artifact.sha256[:16]}.part"
        if self._storage.digest(target) == artifact.sha256:
            return
        self._make_way(model, slot, file, part)
        twin = path(model, other(slot), file)
        if (
            self._storage.size(twin) == artifact.size_bytes
            and self._storage.digest(twin) == artifact.sha256
        ):
            self._make_room(artifact.size_bytes)
            self._storage.copy(twin, target)
            return
        resumed = self._download(part, artifact, token)
        found = self._storage.digest(part)
        if found != artifact.sha256 and resumed:
            self._storage.remove(part)
            self._download(part, artifact, token)  # the old part may be wrong: restart once
            found = self._storage.digest(part)
        if found != artifact.sha256:
            self._storage.remove(part)
            raise DamagedTransferError(
                f"{file} does not match the manifest: SHA-256 {artifact.sha256} expected, "
                f"{found} found.",
                expected=artifact.sha256,
                found=found or "",
                refusal=Reason.DIGEST,
            )
        self._storage.rename(part, target)

    def _opened(self, stored: str, open_envelope: Open) -> tuple[str, ReleaseManifest] | None:
        """The manifest in a file. None if there is no valid one."""
        try:
            data = self._storage.read(stored)
            return None if data is None else open_envelope(data)
        except EdgefleetError:
            return None

    def _use_next_manifest(self, model: str, slot: SlotName) -> None:
        next_envelope = path(model, slot, NEXT_MANIFEST)
        if self._storage.size(next_envelope) is not None:
            self._storage.rename(next_envelope, path(model, slot, MANIFEST))

    def _make_way(self, model: str, slot: SlotName, file: FileName, part: str) -> None:
        """Remove the old file and partial downloads of other artifacts."""
        for name in self._storage.list(folder(model, slot)):
            found = path(model, slot, name)
            if name == file or (name.startswith(f"{file}.") and found != part):
                self._storage.remove(found)

    def _make_room(self, wanted_bytes: int) -> None:
        if self._storage.free_bytes() < wanted_bytes + limits.DISK_MARGIN_BYTES:
            raise DeviceError("disk_full", f"The disk has no room for {wanted_bytes} bytes.")

    def _download(self, part: str, artifact: Artifact, token: Token) -> bool:
        """Download the rest of ``part``. Returns whether it resumed a partial download."""
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
                raise NetworkError(
                    "connection_lost", "The hub has no such range: the download restarts."
                )
            raise error_from_answer(answer.status, body)
        try:
            check_type(answer.headers, BINARY)
            check_range(answer.status, answer.headers, have, artifact.size_bytes)
        except DamagedTransferError:
            _close(answer.chunks)
            raise
        if have and answer.status == _OK:
            self._storage.remove(part)
            have, resumed = 0, False
        paced = self._paced(answer.chunks, token)
        followed = self.progress.follow(part, paced, have, artifact.size_bytes)
        self._store(part, followed, artifact.size_bytes - have)
        return resumed

    def _store(self, part: str, chunks: Iterator[bytes], missing: int) -> None:
        waiting = bytearray()
        try:
            for chunk in chunks:
                missing -= len(chunk)
                if missing < 0:
                    break
                waiting += chunk
                if len(waiting) >= limits.FLUSH_BYTES:
                    self._storage.append(part, bytes(waiting))
                    waiting.clear()
        except (NetworkError, Stopped):
            if waiting:  # keep the received bytes for the next try
                self._storage.append(part, bytes(waiting))
            raise
        if missing < 0:
            _close(chunks)
            self._storage.remove(part)
            raise DamagedTransferError("The answer has more bytes than announced.")
        if waiting or missing == 0:
            self._storage.append(part, bytes(waiting))
        if missing > 0:
            raise NetworkError(
                "connection_lost", f"The download stopped: {missing} bytes are missing."
            )

    def _paced(self, chunks: Iterator[bytes], token: Token) -> Iterator[bytes]:
        """The chunks, at the allowed rate at most. Raises Stopped."""
        started, taken = self._clock.monotonic(), 0
        for chunk in chunks:
            token.check()
            yield chunk
            taken += len(chunk)
            if self._bytes_per_s:
                elapsed_s = self._clock.monotonic() - started
                token.check(wait_s=taken / self._bytes_per_s - elapsed_s)


def _beginning(chunks: Iterator[bytes]) -> bytes:
    """The body of an error answer, up to PROBLEM_BYTES."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > limits.PROBLEM_BYTES:
            break
    _close(chunks)
    return bytes(body)


def _close(chunks: Iterator[bytes]) -> None:
    """End a download whose body is not read to the end."""
    if close := getattr(chunks, "close", None):
        close()


def _verified(envelope: bytes, sha256: str, open_envelope: Open) -> tuple[str, ReleaseManifest]:
    """The opened envelope. Raises DamagedTransferError, PublisherError, DeviceError."""
    if len(envelope) > limits.MANIFEST_BYTES:
        raise DamagedTransferError(
            f"The manifest has {len(envelope)} bytes; {limits.MANIFEST_BYTES} are allowed."
        )
    found = sha256_hex(envelope)
    try:
        opened = open_envelope(envelope)
    except PublisherError as error:
        if error.code != "signature_invalid":
            raise
        raise DamagedTransferError(error.message, found=found, refusal=Reason.SIGNATURE) from error
    if opened[0] != sha256:
        raise DamagedTransferError(
            "The manifest is not the offered one.", found=found, refusal=Reason.DIGEST
        )
    return opened
