"""Files that are complete and on the disk before they have their name."""

import os
from pathlib import Path


def replace_file(target: Path, data: bytes, mode: int) -> None:
    """Replace a file at once: after a power cut it has the old bytes or the new ones.

    Raises OSError; then the file is as it was.
    """
    temporary = target.with_name(f".{target.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
