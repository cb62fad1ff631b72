"""Reads uploaded files in a child process with limits: a hostile file never meets the hub.

A file of 10 MB can take gigabytes to read, or crash its reader. The hub knows the size, the digest
and the manifest of a file; all else is read by ``hub.file_reader_child``.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from edgefleet.base.errors import DeviceError, EdgefleetError, PublisherError
from edgefleet.base.readable import wait_readable
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.file_reading import Part, ReadEnd, ReadFile, ReadResult
from edgefleet.hub.limits import (
    READER_CPU_S,
    READER_MEMORY_BYTES,
    READER_MEMORY_FACTOR,
    READER_SLACK_S,
    READER_SPEED_BYTES,
)
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.protocol.runtimes import BUILT_IN
from edgefleet.protocol.wire import decode, encode, error_of
from edgefleet.serving.limits import GOLDEN_UNPACKED_BYTES

_COMMAND: Final = ("-m", "edgefleet.hub.file_reader_child")
_LINE_BYTES: Final = 128 << 10
_WAYS: Final = {
    ReadEnd.MEMORY: "takes more than {mib:,} MiB of memory to read",
    ReadEnd.TIME: "takes longer than {cpu_s:,.0f} s to read",
    ReadEnd.CRASH: "ends its reader with {detail}",
}


class FileReader:
    """Checks the files of one release after the other. One file is read at a time."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    async def check(self, manifest: ReleaseManifest) -> None:
        """Check the uploaded files of a release.

        Raises PublisherError ``release_file_invalid``, ``golden_mismatch``, ``not_a_model``,
        ``model_truncated``, ``model_is_pickle``, ``model_unsupported``, or ``artifact_unreadable``
        for a file that reaches a limit of its reader or crashes it; DeviceError
        ``runtime_missing``, or ``overloaded`` if no reader can be started.
        """
        await asyncio.to_thread(self._check_all, manifest)

    def close(self) -> None:
        """End the child. A check in progress fails."""
        self._closed = True
        child = self._child
        if child is not None:
            _kill(child)
        with self._lock:
            self._end()

    def _check_all(self, manifest: ReleaseManifest) -> None:
        for artifact, field, request in _requests(manifest, self._blobs):
            with self._lock:
                result = self._ask(request)
            error = _error(result, artifact, field, request)
            if error is not None:
                raise error

    def _ask(self, request: ReadFile) -> ReadResult:
        """The result of one reading. A child that has ended meanwhile is started once more."""
        for _ in range(2):
            if self._closed:
                break
            result = self._try(request)
            if result is not None:
                return result
            self._end()
        raise DeviceError("overloaded", "The process that reads uploaded files did not answer.")

    def _try(self, request: ReadFile) -> ReadResult | None:
        """None if the child ended, or did not answer."""
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._child = _start()
        child = self._child
        given, answers = child.stdin, child.stdout
        if given is None or answers is None:
            return None
        try:
            given.write(encode(request) + b"\n")
            given.flush()
            return _answer(answers, request.wall_s + READER_SLACK_S)
        except (OSError, EdgefleetError):
            return None

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        _kill(child)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End the child and the process in which it reads a file."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def _start() -> "subprocess.Popen[bytes]":
    """Raises DeviceError ``overloaded``."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("EDGEFLEET_")
    }
    try:
        return subprocess.Popen(
            [sys.executable, *_COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=-1,
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},  # it forks: one thread only
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(
            "overloaded", f"The reader of uploaded files cannot be started: {error.strerror}."
        ) from error


def _answer(answers: IO[bytes], timeout_s: float) -> ReadResult | None:
    if not wait_readable(answers.fileno(), timeout_s):
        return None
    line = answers.readline(_LINE_BYTES)
    return decode(line, ReadResult) if line else None


def _requests(manifest: ReleaseManifest, blobs: Blobs) -> Iterator[tuple[Artifact, str, ReadFile]]:
    """The readings of a release, with the artifact and its field."""

    def one(
        part: Part,
        artifact: Artifact,
        field: str,
        index: int = 0,
    ) -> tuple[Artifact, str, ReadFile]:
        path = blobs.path(artifact.sha256)
        unpacked = GOLDEN_UNPACKED_BYTES if part == "golden" else artifact.size_bytes
        return artifact, field, _bounded(part, manifest, path, unpacked, index)

    if manifest.lineage is not None:
        yield one("lineage", manifest.lineage, "lineage")
    for index, variant in enumerate(manifest.variants):
        # The file of a user's own runtime is proved by its devices: the hub cannot read it.
        if variant.runtime in BUILT_IN:
            yield one("variant", variant.artifact, f"variants[{index}].artifact", index)
    yield one("golden", manifest.golden.artifact, "golden.artifact")


def _bounded(
    part: Part,
    manifest: ReleaseManifest,
    path: Path,
    unpacked_bytes: int,
    index: int,
) -> ReadFile:
    cpu_s = READER_CPU_S + unpacked_bytes / READER_SPEED_BYTES
    return ReadFile(
        part=part,
        manifest=manifest,
        path=str(path),
        memory_bytes=READER_MEMORY_BYTES + READER_MEMORY_FACTOR * unpacked_bytes,
        cpu_s=cpu_s,
        wall_s=4 * cpu_s,  # other programs use the machine as well
        index=index,
    )


def _error(
    result: ReadResult, artifact: Artifact, field: str, request: ReadFile
) -> EdgefleetError | None:
    if result.end is ReadEnd.DONE:
        return None
    if result.problem is not None:
        return error_of(result.problem)
    way = _WAYS.get(result.end, "cannot be read").format(
        mib=request.memory_bytes >> 20, cpu_s=request.cpu_s, detail=result.detail
    )
    return PublisherError(
        "artifact_unreadable",
        f"Artifact {artifact.sha256} of {artifact.size_bytes:,} bytes {way}.",
        field=field,
    )
