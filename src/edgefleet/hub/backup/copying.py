"""Copies of files that are complete and durable before they have their name."""

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgefleet.base.durable import sync_folder
from edgefleet.base.ids import file_sha256

PRIVATE: Final = 0o600
_PIECE: Final = 1 << 20


def copy_file(source: Path, target: Path, *, mode: int = PRIVATE) -> str:
    """Copy a file, sync it, then rename it to ``target``. Returns the SHA-256 of its bytes."""
    digest, part = sha256(), target.with_name(f".{target.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(handle, "wb") as out, source.open("rb") as given:
        while piece := given.read(_PIECE):
            digest.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    part.chmod(mode)
    part.replace(target)
    sync_folder(target.parent)
    return digest.hexdigest()


def copy_blob(source: Path, target: Path, digest: str) -> bool:
    """Copy an artifact. Returns False if the source is missing or has other bytes."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        if copy_file(source, target, mode=0o444) == digest:
            return True
    except FileNotFoundError:
        return False
    target.unlink()
    return False


def is_whole(path: Path, size_bytes: int, digest: str) -> bool:
    """True if the file is there with this size and this SHA-256."""
    try:
        return path.stat().st_size == size_bytes and file_sha256(path) == digest
    except FileNotFoundError:
        return False


def remove_folder(folder: Path) -> None:
    """Remove a folder; one that is half removed has no record."""
    for record in folder.glob("backup.json"):
        record.unlink()
        sync_folder(folder)
    shutil.rmtree(folder)
