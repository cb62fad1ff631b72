"""The door to randomness."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """Draws that a simulator can repeat from a seed."""

    def uniform(self) -> float:
        """A number in [0, 1)."""
        ...

    def token(self, size_bytes: int) -> bytes:
        """Bytes nobody can guess (in the real world)."""
        ...


class SystemEntropy:
    """The operating system's generator."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def uniform(self) -> float:
        return self._random.random()

    def token(self, size_bytes: int) -> bytes:
        return secrets.token_bytes(size_bytes)


class SeededEntropy:
    """Repeatable draws for simulations and tests; never for secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatability is the purpose

    def uniform(self) -> float:
        return self._random.random()

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)
