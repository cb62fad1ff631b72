"""Values of the rows of a table, each kept once under a number for as long as a row has it."""

from array import array
from collections.abc import Hashable
from typing import Generic, TypeVar, cast

T = TypeVar("T", bound=Hashable)


class SharedValues(Generic[T]):
    """The number of a value that no row has any more is used again."""

    def __init__(self) -> None:
        self._values: list[T | None] = []  # by number; None: no row has it
        self._uses = array("L")  # rows with each number
        self._free: list[int] = []
        self._numbers: dict[T, int] = {}

    def __len__(self) -> int:
        """The values that rows have."""
        return len(self._numbers)

    def __getitem__(self, number: int) -> T:
        return cast("T", self._values[number])

    def number(self, value: T) -> int | None:
        """The number of a value. None if no row has it."""
        return self._numbers.get(value)

    def use(self, value: T) -> int:
        """The number of ``value``, for one more row."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = self._place(value)
        self._uses[number] += 1
        return number

    def drop(self, number: int) -> None:
        """A row has the value with this number no more."""
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._numbers[self[number]]
            self._values[number] = None
            self._free.append(number)

    def _place(self, value: T) -> int:
        if self._free:
            number = self._free.pop()
            self._values[number] = value
            return number
        self._values.append(value)
        self._uses.append(0)
        return len(self._values) - 1
