"""Limits of a release folder, and of folders of profiles."""

from typing import Final

RELEASE_FILE_BYTES: Final = 64 << 10
VARIANTS: Final = 32
NOTES_CHARS: Final = 2_000
BATCH: Final = 4_096
MEMORY_LIMIT_MIB: Final = 1 << 20
PROFILES: Final = 256  # of one folder
