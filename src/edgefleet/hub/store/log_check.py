"""Whether SQLite has read all commits of the write-ahead log, or stopped at a damaged one.

SQLite takes the first frame of the log with a wrong checksum for its end, since a power cut leaves
such a frame in the last commit. A damaged frame in the middle thus loses every later commit without
an error. Each commit is synced before the next one is written, so a power cut leaves at most one
commit behind the end that SQLite found. Two or more are damage.

The format is that of sqlite.org/fileformat2.html#the_write_ahead_log.
"""

import sqlite3
import struct
from pathlib import Path
from typing import Final

from edgefleet.hub.store.faults import cannot_write, damaged

_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, sequence, 2 salts, 2 checksums
_FRAME: Final = struct.Struct(">6I")  # page, pages after a commit (or 0), 2 salts, 2 checksums
_WORDS: Final = 0xFFFF_FFFF


def check_log(path: Path, connection: sqlite3.Connection) -> None:
    """Raise OperatorError ``data_dir_damaged`` if commits of the log of ``path`` were not read.

    ``connection`` has read the log and written nothing. On a disk that cannot be written there is
    no check.
    """
    try:
        _busy, frames, _moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        if cannot_write(error):
            return
        raise
    log = path.with_name(f"{path.name}-wal")
    if frames < 0 or not log.exists():
        return
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    lost = _commits_after(log, frames, _FRAME.size + page_size)
    if lost > 1:
        raise damaged(f"{log} is damaged: {lost} commits cannot be read.")


def _commits_after(log: Path, frames: int, step: int) -> int:
    """Number of commits behind the first ``frames`` of the log, each ``step`` bytes long.

    Frames of earlier runs of the log have other salts than those of the present one.
    """
    commits, salts = 0, None
    with log.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) == _HEADER.size and _is_sound(head):
            salts = _HEADER.unpack(head)[4:6]
        for start in range(_HEADER.size + frames * step, log.stat().st_size - step + 1, step):
            file.seek(start)
            _page, pages, *rest = _FRAME.unpack(file.read(_FRAME.size))
            found = tuple(rest[:2])
            salts = salts or found  # with a damaged header, those of the first frame
            commits += bool(pages) and found == salts
    return commits


def _is_sound(head: bytes) -> bool:
    """True if the header of the log has its checksum."""
    big_endian = head[3] & 1
    words = struct.unpack(">6I" if big_endian else "<6I", head[:24])
    first = second = 0
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _WORDS
        second = (second + two + first) & _WORDS
    return (first, second) == _HEADER.unpack(head)[6:]
