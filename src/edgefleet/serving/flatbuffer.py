"""A reader of FlatBuffers that checks each bound: the bytes come from a publisher.

The format is that of flatbuffers.dev, "FlatBuffer Internals": little-endian, a table begins with
the distance back to its vtable, which has the place of each field or 0. Reading a field copies no
more than that field, follows no cycle by itself, and raises DamagedError beyond the end.
"""

from struct import Struct
from typing import Final, Self

_U16: Final = Struct("<H")
_U32: Final = Struct("<I")
_I32: Final = Struct("<i")


class DamagedError(ValueError):
    """An offset or a size leads out of the file."""


class Table:
    """One table at ``at`` in ``data``. Fields are numbered as in the schema, from 0."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - self._number(_I32, at)
        self._fields = self._number(_U16, self._vtable) // 2 - 2

    @classmethod
    def root(cls, data: bytes) -> Self:
        """The first table. Raises DamagedError."""
        if len(data) < 8:
            raise DamagedError("the file has fewer than 8 bytes")
        return cls(data, _U32.unpack_from(data)[0])

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A number in the format ``kind`` of ``struct``."""
        at = self._place(field)
        return self._number(Struct(f"<{kind}"), at) if at else default

    def table(self, field: int) -> Self | None:
        at = self._place(field)
        return type(self)(self._data, self._follow(at)) if at else None

    def text(self, field: int, most: int) -> str:
        """At most ``most`` bytes of text. Raises DamagedError if it is longer or not UTF-8."""
        at, size = self._vector(field, 1, most)
        try:
            return self._data[at : at + size].decode()
        except UnicodeDecodeError as error:
            raise DamagedError("a name is not UTF-8") from error

    def numbers(self, field: int, kind: str, most: int) -> tuple[int | float, ...]:
        """A vector of numbers in the format ``kind`` of ``struct``, at most ``most`` of them."""
        one = Struct(f"<{kind}")
        at, size = self._vector(field, one.size, most)
        return tuple(value for (value,) in one.iter_unpack(self._data[at : at + size * one.size]))

    def tables(self, field: int, most: int) -> tuple[Self, ...]:
        """A vector of at most ``most`` tables."""
        at, size = self._vector(field, 4, most)
        return tuple(type(self)(self._data, self._follow(at + 4 * place)) for place in range(size))

    def count(self, field: int) -> int:
        """The size of a vector, which is not read."""
        at = self._place(field)
        return self._number(_U32, self._follow(at)) if at else 0

    def _vector(self, field: int, size_bytes: int, most: int) -> tuple[int, int]:
        """The place of the first element, and the number of elements."""
        at = self._place(field)
        if not at:
            return 0, 0
        start = self._follow(at)
        size = self._number(_U32, start)
        if size > most or start + 4 + size * size_bytes > len(self._data):
            raise DamagedError(f"a list of {size} is too long")
        return start + 4, size

    def _place(self, field: int) -> int:
        """The place of the field, or 0 if the table has none."""
        if field >= self._fields:
            return 0
        inside = self._number(_U16, self._vtable + 4 + 2 * field)
        return self._at + inside if inside else 0

    def _follow(self, at: int) -> int:
        return at + self._number(_U32, at)

    def _number(self, kind: Struct, at: int) -> int:
        if not 0 <= at <= len(self._data) - kind.size:
            raise DamagedError(f"offset {at} is outside of the file")
        value: int = kind.unpack_from(self._data, at)[0]
        return value
