"""A cache on disk whose keys are digests of everything that decides the content.

An entry is a folder. It is written beside its place and renamed, so an entry is whole or absent,
whenever a search is killed. Its files are compared with their digests each time they are found; an
entry that is damaged is removed and made again.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from edgefleet.base.ids import file_sha256

_INDEX: Final = "entry.json"
_FORMAT: Final = 1


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """``edgefleet/optimize`` in the user's cache folder (XDG)."""
    home = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "edgefleet" / "optimize"


def key_of(kind: str, **parts: Any) -> str:
    """The key of an entry: a digest of its kind and of all parts, which are JSON values."""
    whole = json.dumps({"format": _FORMAT, "kind": kind, "parts": parts}, sort_keys=True)
    return sha256(whole.encode()).hexdigest()


class Cache:
    """Entries by key. Several processes may use one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """The folder of a whole entry, or None."""
        place = self._place(key)
        try:
            index: Mapping[str, str] = json.loads((place / _INDEX).read_text())
            whole = _digests(place) == index
        except (OSError, ValueError):
            whole = False
        if whole:
            return place
        if place.exists():
            shutil.rmtree(place, ignore_errors=True)
        return None

    def entry(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The folder of the entry. If there is none, ``fill`` writes its files into a new one."""
        if (found := self.find(key)) is not None:
            return found
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{key[:8]}-", suffix=".part", dir=place.parent))
        try:
            fill(made)
            (made / _INDEX).write_text(json.dumps(_digests(made), sort_keys=True))
            try:
                made.rename(place)
            except OSError:  # another process was faster
                if self.find(key) is None:
                    raise
        finally:
            if made.exists():
                shutil.rmtree(made, ignore_errors=True)
        return place

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _digests(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _INDEX:
            found[str(path.relative_to(folder))] = file_sha256(path)
    return found
