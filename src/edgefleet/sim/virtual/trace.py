"""The trace of a run: a digest of all entries, and the last entries."""

from collections import deque
from hashlib import blake2b
from struct import Struct
from typing import Final

from edgefleet.rollout.fleet.columns import Rows

TAIL: Final = 200  # entries kept to be shown
_BATCH_BYTES: Final = 1 << 16
_ENTRY: Final = Struct("<dHqq")

# The kinds of entries. The digest uses the number, or the word in ``note``.
WORDS: Final = (
    "offered", "reported", "again", "activated", "power cut", "booted", "hub killed", "hub up",
    "rollout", "enrolled", "operator", "healed", "violation",
)  # fmt: skip
CODES: Final = {word: number for number, word in enumerate(WORDS)}


class Trace:
    """``digest`` covers every entry. ``tail`` has the last entries.

    An entry is (time, word, row or other subject, text).
    """

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._batch = bytearray()
        self._texts: dict[str, int] = {}
        self._tail: deque[tuple[float, str, str | Rows, str]] = deque(maxlen=TAIL)
        self.entries = 0

    @property
    def tail(self) -> tuple[tuple[float, str, str | int, str], ...]:
        """The last entries, one per device."""
        entries: list[tuple[float, str, str | int, str]] = []
        for at, word, about, text in self._tail:
            names = [about] if isinstance(about, str) else about[-TAIL:].tolist()
            entries += [(at, word, name, text) for name in names]
        return tuple(entries[-TAIL:])

    def rows(self, at: float, word: str, rows: Rows, text: str) -> None:
        """Add an entry for each of these devices."""
        number = self._texts.get(text)
        if number is None:
            number = self._text(text)
        self._batch += _ENTRY.pack(at, CODES[word], len(rows), number)
        self._batch += rows.tobytes()
        self.entries += len(rows)
        self._tail.append((at, word, rows, text))
        if len(self._batch) >= _BATCH_BYTES:
            self._hash.update(self._batch)
            self._batch.clear()

    def note(self, at: float, word: str, about: str, text: str) -> None:
        """Add an entry about anything but devices."""
        self._batch += f"{at!r} {word} {about} {text}\n".encode()
        self.entries += 1
        self._tail.append((at, word, about, text))

    def digest(self) -> str:
        self._hash.update(self._batch)
        self._batch.clear()
        return self._hash.hexdigest()

    def _text(self, text: str) -> int:
        number = self._texts[text] = len(self._texts)
        self._batch += text.encode()
        return number
