"""Bounds of the simulator."""

from typing import Final

ACTIONS_PER_TURN: Final = 500  # events before a real-time loop handles posted actions
LONGEST_WAIT_S: Final = 1.0
SHELVED_BYTES: Final = 16 << 10  # smaller files are not shared between devices
ANSWER_TIMEOUT_S: Final = 10.0  # the same as the real agent's timeout
PIECE_S: Final = 0.5  # seconds of transfer between two checks of the link
CONNECTIONS: Final = 4  # persistent connections to a real hub
ENROL_AGAIN_S: Final = 1.0
FEW_DEVICES: Final = 8  # up to here equal check-ins are handled one by one, above it as one batch
REPORT_EVERY_S: Final = 1.0
STANDING_FLUSH_S: Final = 5.0  # how often a simulated hub stores the standings
