"""One planted bug: a changed line, and what must catch it."""

from dataclasses import dataclass

Change = tuple[str, str, str]
"""A file, the text that stands in it once, and the text in its place."""


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``. ``trials`` are scenario/devices, or tests of pytest.

    ``checker`` is the checker that must report the bug in the simulations; another checker is not
    enough. Empty if any will do. ``also`` has further changes, where a second line guards against
    the bug.
    """

    name: str
    file: str
    old: str
    new: str
    trials: tuple[str, ...]
    checker: str = ""
    also: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return ((self.file, self.old, self.new), *self.also)
