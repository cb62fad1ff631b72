"""What happened in a run, in order: its digest, its end, and the curve that is drawn from it."""

from collections import deque
from hashlib import blake2b
from struct import Struct
from typing import Final

from edgefleet.rollout.fleet.columns import Rows

TAIL: Final = 200  # entries kept for people
_BATCH_BYTES: Final = 1 << 16
_ENTRY: Final = Struct("<dHqq")

# What an entry can be. The number goes into the digest, the word before people.
WORDS: Final = (
    "offered", "reported", "again", "granted", "held back", "activated", "power cut", "booted",
    "hub killed", "hub up", "rollout", "enrolled", "operator", "healed", "violation",
)  # fmt: skip
CODES: Final = {word: number for number, word in enumerate(WORDS)}


class Trace:
    """``digest`` stands for every entry; ``tail`` holds the last ones.

    An entry is (at, word, row or what else it is about, text).
    """

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._batch = bytearray()
        self._texts: dict[str, int] = {}
        self._tail: deque[tuple[float, str, str | Rows, str]] = deque(maxlen=TAIL)
        self.entries = 0

    @property
    def tail(self) -> tuple[tuple[float, str, str | int, str], ...]:
        """The last entries, one a device."""
        told: list[tuple[float, str, str | int, str]] = []
        for at, word, about, text in self._tail:
            names = [about] if isinstance(about, str) else about[-TAIL:].tolist()
            told += [(at, word, name, text) for name in names]
        return tuple(told[-TAIL:])

    def rows(self, at: float, word: str, rows: Rows, text: str) -> None:
        """Something that concerns each of these devices."""
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
        """Something else."""
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
