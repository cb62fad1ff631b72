"""Limits of ``edgefleet infer`` and ``edgefleet bench``."""

from typing import Final

INPUT_BYTES: Final = 256 << 20  # of one file
LOAD_CONNECTIONS: Final = 1000
LOAD_RATE: Final = 100_000.0  # requests per second
LOAD_SECONDS: Final = 3600.0
LOAD_REQUESTS: Final = 100_000_000
