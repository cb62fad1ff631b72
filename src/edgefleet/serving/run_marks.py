"""Marks the models that run in this process; see ``protocol.run_marks``."""

import mmap
import os
from pathlib import Path

from edgefleet.protocol.run_marks import RECORD_BYTES, RECORDS, record


class RunMarks:
    """The marks of this process. Without a usable file they are kept in memory only.

    ``marks[place] = 1`` marks a model and ``marks[place] = 0`` ends it: 0.1 us for both.
    """

    def __init__(self, path: Path | None = None) -> None:
        size_bytes = RECORD_BYTES * (RECORDS + 1)  # the last record is shared by all the others
        self.marks = _mapped(path, size_bytes) or mmap.mmap(-1, size_bytes)
        self._free = list(range(RECORDS))

    def reserve(self, model: str) -> int:
        """A place for a release of ``model``."""
        if not self._free:
            return RECORDS * RECORD_BYTES  # without a name: its crash is attributed to no model
        at = self._free.pop(0) * RECORD_BYTES
        self.marks[at : at + RECORD_BYTES] = record(model)
        return at

    def release(self, place: int) -> None:
        """Free the place."""
        if place < RECORDS * RECORD_BYTES:
            self.marks[place : place + RECORD_BYTES] = bytes(RECORD_BYTES)
            self._free.append(place // RECORD_BYTES)


def _mapped(path: Path | None, size_bytes: int) -> mmap.mmap | None:
    """The mapped file, without marks. None if the disk has no room or cannot be written."""
    if path is None:
        return None
    try:
        with path.open("wb+", buffering=0) as file:
            # Without its blocks a write to the mapping ends the process if the disk is full.
            os.posix_fallocate(file.fileno(), 0, size_bytes)
            return mmap.mmap(file.fileno(), size_bytes)
    except OSError:
        return None
