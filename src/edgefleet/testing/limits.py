"""Bounds of the public fixtures."""

from typing import Final

PLAY_S: Final = 86_400.0  # virtual time after which ``play`` raises AssertionError
REQUESTS_PER_S: Final = 10.0  # requests that a fake device serves in a second
OUTCOMES_PER_CHECKIN: Final = 16  # the limit of the protocol
