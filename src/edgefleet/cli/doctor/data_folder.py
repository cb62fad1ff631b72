"""The data folder: usable, and by its owner alone."""

import os
import stat
from pathlib import Path
from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.client.discover import TOKEN_FILE

SECRETS: Final = (TOKEN_FILE, "hub.secret", "hub.sqlite")


def check(ground: Ground) -> Finding:
    folder = ground.folder
    if not folder.exists():
        return Finding(
            check="data folder",
            state=State.LOOK,
            text=f"{folder} does not exist: no hub has run here.",
            fix="edgefleet serve",
        )
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            check="data folder",
            state=State.BAD,
            text=f"{folder} cannot be read and written by this user.",
            fix=f"sudo chown -R $USER {folder}",
        )
    loose = [path for path in _secrets(folder) if _mode(path) & 0o077]
    if loose:
        names = " ".join(str(path) for path in loose)
        return Finding(
            check="data folder",
            state=State.BAD,
            text=f"Others on this machine can read {', '.join(path.name for path in loose)}.",
            fix=f"chmod go= {names}",
        )
    return Finding(check="data folder", state=State.OK, text=f"{folder}, for its owner alone.")


def _secrets(folder: Path) -> list[Path]:
    """Secrets that others could get at; a folder closed to them closes all in it."""
    if not _mode(folder) & 0o077:
        return [path for path in (folder / TOKEN_FILE,) if path.exists()]
    return [folder / name for name in SECRETS if (folder / name).exists()]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
