"""A set of rows in a byte a row: a million rows are a megabyte, where a ``set`` takes sixty."""


class RowSet:
    """Grows as needed; ``len`` is kept."""

    __slots__ = ("_bytes", "_count")

    def __init__(self) -> None:
        self._bytes = bytearray(1024)
        self._count = 0

    def add(self, row: int) -> bool:
        """True when it was not there."""
        if row >= len(self._bytes):
            self._bytes.extend(bytes(max(row + 1, 2 * len(self._bytes)) - len(self._bytes)))
        if self._bytes[row]:
            return False
        self._bytes[row] = 1
        self._count += 1
        return True

    def discard(self, row: int) -> None:
        if row in self:
            self._bytes[row] = 0
            self._count -= 1

    def __contains__(self, row: int) -> bool:
        return row < len(self._bytes) and self._bytes[row] == 1

    def __len__(self) -> int:
        return self._count
