"""Limits of the inference client."""

from typing import Final

JSON_ELEMENTS: Final = 4096  # a larger tensor is sent and asked for in binary
IMAGE_PIXELS: Final = 64 << 20
RECONNECT_S: Final = 0.05  # between two attempts to connect
SWEEP_S: Final = 0.05  # between two checks of the deadlines
