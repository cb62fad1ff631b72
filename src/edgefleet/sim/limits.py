"""Bounds of the simulator."""

from typing import Final

ACTIONS_PER_TURN: Final = 500  # before a paced world looks at what was posted
LONGEST_WAIT_S: Final = 1.0
SHELVED_BYTES: Final = 16 << 10  # smaller files are each device's own
ANSWER_TIMEOUT_S: Final = 10.0  # as long as a real agent waits for one
PIECE_S: Final = 0.5  # of transfer, between two looks at the link
CONNECTIONS: Final = 4  # kept alive to a real hub
ENROL_AGAIN_S: Final = 1.0
FEW_DEVICES: Final = 8  # devices that say the same; more are taken together
REPORT_EVERY_S: Final = 1.0
STANDING_FLUSH_S: Final = 5.0  # how often a simulated hub writes down what devices run
