"""Cached answers to a question about the values of an interned column, one for each value."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.fleet.columns import Mask

_MANY: Final = 1000


class Answers:
    """Cached answers about label sets, kits, release sets or activities: one for each number.

    ``ask`` answers for a number, with at most 255. ``count`` returns how many numbers there are
    now. ``ask_all`` gives the answers for all numbers at once, which is used for many.
    """

    def __init__(
        self,
        ask: Callable[[int], int],
        count: Callable[[], int],
        ask_all: Callable[[], Mask] | None = None,
    ) -> None:
        self._ask = ask
        self._count = count
        self._ask_all = ask_all
        self._known = bytearray()

    def __getitem__(self, number: int) -> bool:
        if number >= len(self._known):
            self._learn()
        return self._known[number] != 0

    def code(self, number: int) -> int:
        """The answer itself."""
        if number >= len(self._known):
            self._learn()
        return self._known[number]

    def all(self) -> Mask:
        """One truth value for each number."""
        self._learn()
        return np.frombuffer(bytes(self._known), np.bool_)

    def codes(self) -> npt.NDArray[np.uint8]:
        """The answer itself for each number."""
        self._learn()
        return np.frombuffer(bytes(self._known), np.uint8)

    def _learn(self) -> None:
        if self._ask_all is not None and self._count() - len(self._known) > _MANY:
            self._known = bytearray(self._ask_all().tobytes())
            return
        for number in range(len(self._known), self._count()):
            self._known.append(self._ask(number))
