"""A model file whose bytes are checked, and cannot change between the check and the load.

The file is opened once. Its digest is computed from the open file, and a runtime gets a path to
the same open file, so another file under the old name makes no difference. Against a
program that writes into the file itself:

- A runtime that reads the file once (``path``) gets the file itself: a copy would cost as much
  memory again. A read lease (fcntl(2)) is held from before the check until after the load: the
  kernel grants it only if no process has the file open for writing, and delays each open for
  writing until the lease is returned, or broken after /proc/sys/fs/lease-break-time. After the load
  the lease must still be held. Where the file system has no leases, the file belongs to another
  user or a process has it open for writing, the times of the file must be those from before: the
  kernel sets the time of change, and no program without privileges can set it back.
- A runtime that keeps the file mapped while the model serves (``sealed_path``) gets a copy in
  memory that the kernel has sealed: no process can change it.

This does not protect against root, or against a program that may write into this process.
"""

import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.protocol.release import Artifact

_PIECE_BYTES: Final = 256 << 10
_PAUSE_S: Final = 0.001
_TICK_NS: Final = 20_000_000  # a change within one tick of the kernel does not change the time
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class CheckedFile:
    """An open model file with the digest of its artifact. Made by ``checked``."""

    def __init__(self, descriptor: int, name: str, artifact: Artifact, *, gently: bool) -> None:
        self.name = name
        self.descriptor = descriptor
        self._artifact = artifact
        self._gently = gently
        self._copy = -1

    @property
    def path(self) -> str:
        """A path of the open file, for a runtime that reads it once, within the context."""
        return f"/proc/self/fd/{self.descriptor}"

    def sealed_path(self) -> str:
        """A path of a sealed copy, for a runtime that maps it. A mapping outlives the context.

        The digest is that of the copy. Raises PublisherError ``digest_mismatch``.
        """
        if self._copy < 0:
            self._copy = os.memfd_create("artifact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            at = 0
            while sent := os.sendfile(self._copy, self.descriptor, at, _PIECE_BYTES):
                at += sent
            fcntl.fcntl(self._copy, fcntl.F_ADD_SEALS, _SEALS)
            _check_digest(self._copy, self._artifact, gently=self._gently)
        return f"/proc/self/fd/{self._copy}"

    @property
    def is_sealed(self) -> bool:
        """Whether the runtime got the sealed copy."""
        return self._copy >= 0

    def close(self) -> None:
        for descriptor in (self.descriptor, self._copy):
            if descriptor >= 0:
                os.close(descriptor)


@contextmanager
def checked(path: Path, artifact: Artifact, *, gently: bool = False) -> Generator[CheckedFile]:
    """Open the file at ``path`` and check it. Load it within the context.

    ``gently`` reads with pauses, in which other threads get the core. Raises OperatorError
    ``not_found`` if the file cannot be read, PublisherError ``digest_mismatch`` if its bytes are
    not those of the artifact, also if they changed while the context was open.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(error) from error
    with contextlib.closing(CheckedFile(descriptor, path.name, artifact, gently=gently)) as file:
        leased = _lease(descriptor)
        before = _wait_for_tick(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OperatorError("not_found", "The artifact is not a file.", field="artifact_path")
        _check_digest(descriptor, artifact, gently=gently)
        yield file
        if file.is_sealed:
            return
        after = os.fstat(descriptor)
        if leased:
            changed = fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK
        else:
            changed = _times(before) != _times(after)
        if changed:
            raise PublisherError(
                "digest_mismatch",
                f"The file {path.name} was written to while it was loaded.",
                hint="Nothing but the agent may write into the data folder. Load it again.",
            )


def _lease(descriptor: int) -> bool:
    """Take a read lease. False if the file system, or the owner of the file, forbids it.

    A process that wants to write makes the kernel send a signal: one that is ignored by default.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _wait_for_tick(descriptor: int) -> os.stat_result:
    """The state of the file, once a write from now on would change its times."""
    found = os.fstat(descriptor)
    age_ns = time.time_ns() - max(found.st_ctime_ns, found.st_mtime_ns)
    if 0 <= age_ns < _TICK_NS:
        time.sleep((_TICK_NS - age_ns) / 1e9)
    return os.fstat(descriptor)


def _times(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_digest(descriptor: int, artifact: Artifact, *, gently: bool) -> None:
    digest, at, piece = sha256(), 0, bytearray(_PIECE_BYTES)
    view = memoryview(piece)
    try:
        while got := os.preadv(descriptor, [piece], at):
            digest.update(view[:got])
            at += got
            if gently:
                time.sleep(_PAUSE_S)
    except OSError as error:
        raise _unreadable(error) from error
    if digest.hexdigest() != artifact.sha256:
        raise PublisherError(
            "digest_mismatch", "The file does not match the SHA-256 of the variant's artifact."
        )


def _unreadable(error: OSError) -> OperatorError:
    return OperatorError(
        "not_found", f"The artifact cannot be read: {error.strerror}.", field="artifact_path"
    )
