"""Limits of the operator's client."""

from typing import Final

REQUEST_TIMEOUT_S: Final = 10.0
UPLOAD_TIMEOUT_S: Final = 120.0  # for sending one piece of an upload, and for the answer
UPLOAD_CHUNK_BYTES: Final = 1 << 20
TOKEN_CHARS: Final = 200
HUB_FILE_BYTES: Final = 64 << 10
WATCH_EVERY_S: Final = 1.0
EVENTS_TIMEOUT_S: Final = 60.0  # of one connection to the stream of events; then another one
EVENTS_PAUSE_S: Final = 1.0  # before the next connection
EVENT_LINE_BYTES: Final = 1 << 20
