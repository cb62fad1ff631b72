"""Limits of a release folder."""

from typing import Final

RELEASE_FILE_BYTES: Final = 64 << 10
VARIANTS: Final = 32
NOTES_CHARS: Final = 2_000
BATCH: Final = 4_096
MEMORY_LIMIT_MIB: Final = 1 << 20
