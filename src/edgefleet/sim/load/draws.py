"""Reproducible random numbers with 8 bytes of state, so that a million streams fit in memory."""

from typing import Final

from edgefleet.base.ids import MASK64, device_hash, mix64

_GAMMA: Final = 0x9E3779B97F4A7C15  # splitmix64's increment, see base.ids.mix64


class Draws:
    """A ``base.entropy.Entropy`` from a seed and a name. Streams with two names are independent."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, name: str) -> None:
        self._state = mix64(seed) ^ device_hash(name)

    def bits(self) -> int:
        """The next 64 random bits."""
        self._state = (self._state + _GAMMA) & MASK64
        return mix64(self._state)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return (self.bits() >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.uniform()

    def happens(self, probability: float) -> bool:
        return self.uniform() < probability

    def token(self, size_bytes: int) -> bytes:
        words = [self.bits().to_bytes(8, "big") for _ in range(-(-size_bytes // 8))]
        return b"".join(words)[:size_bytes]
