"""Limits of the inference client."""

from typing import Final

JSON_ELEMENTS: Final = 4096  # a larger tensor is sent and asked for in binary
INPUT_BYTES: Final = 256 << 20  # of one file
IMAGE_PIXELS: Final = 64 << 20
LOAD_CONNECTIONS: Final = 1000
LOAD_RATE: Final = 100_000.0  # requests per second
LOAD_SECONDS: Final = 3600.0
LOAD_REQUESTS: Final = 100_000_000
ANSWER_HEAD_BYTES: Final = 64 << 10
ANSWER_BODY_BYTES: Final = 256 << 20
RECONNECT_S: Final = 0.05  # between two attempts to connect
SWEEP_S: Final = 0.05  # between two checks of the deadlines
