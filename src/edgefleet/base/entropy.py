"""The interface to randomness."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """A source of random numbers. A simulator can replace it by a seeded one."""

    def uniform(self) -> float:
        """A number in [0, 1)."""
        ...

    def token(self, size_bytes: int) -> bytes:
        """Random bytes. ``SystemEntropy`` gives bytes that are fit for secrets."""
        ...


class SystemEntropy:
    """The operating system's random generator."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def uniform(self) -> float:
        return self._random.random()

    def token(self, size_bytes: int) -> bytes:
        return secrets.token_bytes(size_bytes)


class SeededEntropy:
    """Repeatable random numbers for simulations and tests. Not for secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatability is the purpose

    def uniform(self) -> float:
        return self._random.random()

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)
