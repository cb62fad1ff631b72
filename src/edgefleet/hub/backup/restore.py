"""Put a backup in the place of a hub's data folder.

``hub.json`` is first and the database last: with the first and without the second, a hub refuses to
start. So a restore that was interrupted is never taken for a hub without devices.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgefleet.base.durable import replace_file, sync_folder
from edgefleet.base.errors import OperatorError
from edgefleet.hub.backup.copying import copy_blob, copy_file, is_whole
from edgefleet.hub.backup.record import (
    DATABASE,
    SMALL_FILES,
    BackupRecord,
    blob_path,
    name_at,
    newest_backup,
    read_record,
)
from edgefleet.hub.backup.verify import verify_backup
from edgefleet.hub.datadir import DataDir
from edgefleet.hub.store.faults import damaged
from edgefleet.protocol.wire import Wire

_STATE: Final = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *SMALL_FILES)
_MODES: Final = {"hub.json": 0o644}


class Restored(Wire, frozen=True, kw_only=True):
    """``aside`` is the folder with the files that were replaced. Empty without any."""

    backup: str
    data_dir: str
    record: BackupRecord
    aside: str = ""


def restore_backup(
    given: Path,
    data_dir: Path,
    *,
    now: float,
    replace: bool = False,
    note: Callable[[str], None] = lambda _text: None,
) -> Restored:
    """Restore the backup ``given``, or the newest one in the folder ``given``.

    With ``replace``, the files of the hub that is in ``data_dir`` are moved into a folder there.
    Raises OperatorError ``not_found``, ``data_dir_damaged`` (the backup is not whole),
    ``data_dir_in_use`` or ``setting_invalid`` (there is a hub), or ``OSError``.
    """
    backup = newest_backup(given)
    found = verify_backup(backup, note)
    if found.faults:
        raise damaged(f"The backup is not whole: {found.faults[0]}")
    record = read_record(backup)
    with _locked(data_dir):
        aside = _move_aside(data_dir, name_at(now), replace=replace)
        if not (backup / "hub.json").exists():
            replace_file(data_dir / "hub.json", b"{}\n", _MODES["hub.json"])
        for name in SMALL_FILES:
            if (backup / name).exists():
                copy_file(backup / name, data_dir / name, mode=_MODES.get(name, 0o600))
        for artifact in record.artifacts:
            target = blob_path(data_dir, artifact.sha256)
            if not is_whole(target, artifact.size_bytes, artifact.sha256):
                target.unlink(missing_ok=True)
                copy_blob(blob_path(backup.parent, artifact.sha256), target, artifact.sha256)
        copy_file(backup / DATABASE, data_dir / DATABASE)
    return Restored(backup=str(backup), data_dir=str(data_dir), record=record, aside=aside)


@contextmanager
def _locked(data_dir: Path) -> Generator[None]:
    folder = DataDir(data_dir)
    try:
        yield
    finally:
        folder.release()


def _move_aside(data_dir: Path, name: str, *, replace: bool) -> str:
    """Move the state of the hub that is in ``data_dir`` into a folder. Returns the folder."""
    there = [data_dir / one for one in _STATE if (data_dir / one).exists()]
    if not there:
        return ""
    if not replace:
        raise OperatorError(
            "setting_invalid",
            f"{data_dir} has the files of a hub.",
            field="data_dir",
            hint="Give another folder, or --replace: then they are moved into a folder there.",
        )
    aside = data_dir / f"replaced-{name}"
    aside.mkdir(mode=0o700)
    for path in there:  # the database first: without it, no hub starts
        path.replace(aside / path.name)
    sync_folder(aside)
    sync_folder(data_dir)
    return str(aside)
