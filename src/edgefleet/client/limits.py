"""Bounds of the operator's side of the wire."""

from typing import Final

REQUEST_TIMEOUT_S: Final = 10.0
UPLOAD_TIMEOUT_S: Final = 120.0  # for one piece of an upload to leave, and for its answer
UPLOAD_CHUNK_BYTES: Final = 1 << 20
TOKEN_CHARS: Final = 200
HUB_FILE_BYTES: Final = 64 << 10
WATCH_EVERY_S: Final = 1.0
