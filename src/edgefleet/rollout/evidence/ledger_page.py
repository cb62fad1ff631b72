"""The ledger of a finished rollout: as a page to store, and as columns of the rows that reported.

A page has all that the reports of devices left behind, so a ledger from a page equals one from the
reports. ``SealedColumns`` answers the questions that are still asked about a finished rollout, from
five bytes for each device that reported, whatever the size of the fleet.
"""

import sys
import zlib
from bisect import bisect_left
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import WrongBytes
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.evidence.reasons import ReasonsPage
from edgefleet.rollout.fleet.columns import Mask, Rows

_LEVEL: Final = 1  # of zlib: times of starts take most of a page, and compress little
_FORMAT: Final = 1
_T = TypeVar("_T", bound=np.generic)


class LedgerPage(Wire, frozen=True, kw_only=True):
    """A ledger. The columns have one entry for each row with a report, in ascending order."""

    format: int = _FORMAT
    rows: bytes  # 4 bytes each, as ``started`` and ``keys``; little-endian
    bits: bytes  # 1 byte each, as ``waves``
    started: bytes
    waves: bytes
    keys: bytes
    withdrawn: dict[int, int]
    reasons: ReasonsPage
    deferrals: dict[int, str]
    wrong_bytes: dict[int, WrongBytes]


def encode_page(page: LedgerPage) -> bytes:
    """The page as compressed MessagePack."""
    return zlib.compress(msgspec.msgpack.encode(page), _LEVEL)


def decode_page(data: bytes) -> LedgerPage:
    """Read a page. Raises ValueError if it is damaged or of another format."""
    try:
        page = msgspec.msgpack.decode(zlib.decompress(data), type=LedgerPage)
    except (zlib.error, msgspec.MsgspecError) as error:
        msg = f"not a page of a ledger: {error}"
        raise ValueError(msg) from error
    count = len(page.bits)
    columns = (page.rows, page.started, page.keys)
    if (
        page.format != _FORMAT
        or len(page.waves) != count
        or any(len(column) != 4 * count for column in columns)
    ):
        msg = "not a page of a ledger: its columns differ in length"
        raise ValueError(msg)
    return page


def column(data: bytes, kind: type[_T]) -> npt.NDArray[_T]:
    """A column of a page, little-endian. It is read-only."""
    found = np.frombuffer(data, kind)  # of the machine's own order, so a memoryview can read it
    return found if sys.byteorder == "little" else found.byteswap()


class SealedColumns:
    """The rows of a finished rollout that reported, ascending, with their bits.

    As ``column[row]`` it is the column of standings, with a standing of 0 for all other rows.
    """

    __slots__ = ("_packed", "_rows_at", "bits", "rows", "standings")

    def __init__(
        self,
        rows: npt.NDArray[np.uint32],
        bits: npt.NDArray[np.uint8],
        standing_of: npt.NDArray[np.uint8],
        packed: bytes,
    ) -> None:
        self.rows = rows
        self.bits = bits
        self.standings: npt.NDArray[np.uint8] = standing_of[bits]
        self._rows_at = rows.data
        self._packed = packed

    @property
    def packed(self) -> bytes:
        """The page of the ledger, as ``encode_page`` made it."""
        return self._packed

    def __getitem__(self, row: int) -> int:
        place = bisect_left(self._rows_at, row)
        if place < len(self._rows_at) and self._rows_at[place] == row:
            return int(self.standings[place])
        return 0

    def has(self, row: int) -> bool:
        """True if the row reported."""
        place = bisect_left(self._rows_at, row)
        return place < len(self._rows_at) and self._rows_at[place] == row

    def at(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """The standing of each of the ascending ``rows``."""
        found = np.zeros(len(rows), np.uint8)
        places = np.searchsorted(rows, self.rows)
        inside = places < len(rows)
        places, standings = places[inside], self.standings[inside]
        same = rows[places] == self.rows[inside]
        found[places[same]] = standings[same]
        return found

    def rows_with(self, mask: Mask) -> Rows:
        """The rows for which ``mask``, one entry for each row that reported, is true."""
        found: Rows = self.rows[mask].astype(np.int64)
        return found

    def mask(self, bits: int, rows: int) -> Mask:
        """True for each of the first ``rows`` rows that has one of these bits."""
        found = np.zeros(rows, np.bool_)
        having = self.rows[(self.bits & bits) != 0]
        found[having[having < rows]] = True
        return found
