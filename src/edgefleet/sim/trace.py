"""What happened in a run, in order: its digest, its end, and the curve that is drawn from it."""

from collections import deque
from hashlib import blake2b
from struct import Struct
from typing import Final

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
        self.tail: deque[tuple[float, str, str | int, str]] = deque(maxlen=TAIL)
        self.entries = 0

    def row(self, at: float, word: str, row: int, text: str) -> None:
        """Something that concerns one device."""
        number = self._texts.get(text)
        if number is None:
            number = self._text(text)
        self._batch += _ENTRY.pack(at, CODES[word], row, number)
        self.entries += 1
        self.tail.append((at, word, row, text))
        if len(self._batch) >= _BATCH_BYTES:
            self._hash.update(self._batch)
            self._batch.clear()

    def note(self, at: float, word: str, about: str, text: str) -> None:
        """Something else."""
        self._batch += f"{at!r} {word} {about} {text}\n".encode()
        self.entries += 1
        self.tail.append((at, word, about, text))

    def digest(self) -> str:
        self._hash.update(self._batch)
        self._batch.clear()
        return self._hash.hexdigest()

    def _text(self, text: str) -> int:
        number = self._texts[text] = len(self._texts)
        self._batch += text.encode()
        return number
