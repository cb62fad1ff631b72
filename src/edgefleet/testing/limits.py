"""Bounds of the public fixtures."""

from typing import Final

PLAY_S: Final = 86_400.0  # virtual time after which a rollout that has not ended is given up
REQUESTS_PER_S: Final = 10.0  # that a toy device serves
OUTCOMES_PER_CHECKIN: Final = 16  # as the protocol has it
