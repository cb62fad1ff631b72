"""The data folder: readable and writable by its owner, and by no other user."""

import os
import stat
from pathlib import Path
from typing import Final

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.client.places import TOKEN_FILE

SECRETS: Final = (TOKEN_FILE, "hub.secret", "hub.sqlite")


def check(context: Context) -> Finding:
    folder = context.folder
    if not folder.exists():
        return Finding(
            check="data folder",
            state=State.WARNING,
            text=f"{folder} does not exist: no hub has run with this folder.",
            fix="edgefleet serve",
        )
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            check="data folder",
            state=State.BAD,
            text=f"This user cannot read and write {folder}.",
            fix=f"sudo chown -R $USER {folder}",
        )
    loose = [path for path in _secrets(folder) if _mode(path) & 0o077]
    if loose:
        names = " ".join(str(path) for path in loose)
        return Finding(
            check="data folder",
            state=State.BAD,
            text=f"Other users can read {', '.join(path.name for path in loose)}.",
            fix=f"chmod go= {names}",
        )
    return Finding(check="data folder", state=State.OK, text=f"{folder}, private to its owner.")


def _secrets(folder: Path) -> list[Path]:
    """Secrets that other users might read. A private folder protects all but the token."""
    if not _mode(folder) & 0o077:
        return [path for path in (folder / TOKEN_FILE,) if path.exists()]
    return [folder / name for name in SECRETS if (folder / name).exists()]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
