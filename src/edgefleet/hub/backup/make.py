"""Make a backup of a data folder, also while its hub runs.

The database is copied first, in one read transaction. An artifact is durable before a release that
names it is stored, and is never changed, so those of the copied database can be copied after it.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from edgefleet import __version__
from edgefleet.base.durable import replace_file, sync_folder
from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import file_sha256
from edgefleet.hub.backup.content import read_content
from edgefleet.hub.backup.copying import PRIVATE, copy_blob, copy_file, remove_folder
from edgefleet.hub.backup.record import (
    DATABASE,
    RECORD,
    SMALL_FILES,
    BackupFile,
    BackupRecord,
    backups_in,
    blob_path,
    name_at,
    read_record,
)
from edgefleet.hub.store.connection import connect_to_read
from edgefleet.hub.store.faults import damaged, store_error
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.wire import Wire, encode


class MadeBackup(Wire, frozen=True, kw_only=True):
    """``harmed`` are the artifacts that are missing in the data folder or have other bytes."""

    backup: str
    record: BackupRecord
    copied_bytes: int
    harmed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def make_backup(
    data_dir: Path,
    folder: Path,
    *,
    now: float,
    keep: int | None = None,
    note: Callable[[str], None] = lambda _text: None,
) -> MadeBackup:
    """Back up ``data_dir`` into ``folder``, and keep the last ``keep`` backups there.

    Raises OperatorError ``setting_invalid`` (no hub has used the folder), ``data_dir_in_use``
    (another backup is being made there) or ``data_dir_damaged`` (of the database: no backup is
    made), or ``OSError``. After an error, earlier backups are as they were.
    """
    if not (data_dir / DATABASE).exists():
        raise OperatorError(
            "setting_invalid", f"{data_dir} has no database of a hub.", field="data_dir"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder):
        backup = folder / name_at(now)
        if backup.exists():
            raise OperatorError("name_taken", f"There is a backup {backup}.", field="FOLDER")
        for left in folder.glob(".*.part"):  # of a backup that was interrupted
            remove_folder(left)
        part = folder / f".{backup.name}.part"
        part.mkdir(mode=0o700)
        database = _copy_database(data_dir, part)
        note(f"Database: {database.size_bytes:,} bytes.")
        files = [database, *_copy_small_files(data_dir, part)]
        content = read_content(part / DATABASE)
        copied, harmed = _copy_artifacts(data_dir, folder, content.artifacts, note)
        record = BackupRecord(
            made_at=now,
            version=__version__,
            devices=content.devices,
            releases=content.releases,
            files=tuple(files),
            artifacts=content.artifacts,
        )
        replace_file(part / RECORD, encode(record) + b"\n", PRIVATE)
        part.replace(backup)
        sync_folder(folder)
        return MadeBackup(
            backup=str(backup),
            record=record,
            copied_bytes=copied + sum(file.size_bytes for file in files),
            harmed=harmed,
            removed=() if keep is None else _remove_old(folder, keep),
        )


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OperatorError(
            "data_dir_in_use", f"Another backup is being made in {folder}.", field="FOLDER"
        ) from error
    finally:
        os.close(handle)


def _copy_database(data_dir: Path, part: Path) -> BackupFile:
    path = part / DATABASE
    try:
        with (
            closing(connect_to_read(data_dir / DATABASE)) as source,
            closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise store_error(error) from error
    if found != "ok":
        raise damaged(f"{data_dir / DATABASE} is damaged: {found}.")
    path.chmod(0o600)
    return _described(path)


def _copy_small_files(data_dir: Path, part: Path) -> list[BackupFile]:
    there = [name for name in SMALL_FILES if (data_dir / name).exists()]
    for name in there:
        copy_file(data_dir / name, part / name)
    return [_described(part / name) for name in there]


def _described(path: Path) -> BackupFile:
    return BackupFile(name=path.name, size_bytes=path.stat().st_size, sha256=file_sha256(path))


def _copy_artifacts(
    data_dir: Path, folder: Path, artifacts: tuple[Artifact, ...], note: Callable[[str], None]
) -> tuple[int, tuple[str, ...]]:
    """Bytes that were copied, and the artifacts that could not be."""
    copied, harmed = 0, list[str]()
    missing = [one for one in artifacts if not blob_path(folder, one.sha256).exists()]
    for number, artifact in enumerate(missing, start=1):
        source = blob_path(data_dir, artifact.sha256)
        note(f"Artifact {number} of {len(missing)}: {artifact.size_bytes:,} bytes.")
        if copy_blob(source, blob_path(folder, artifact.sha256), artifact.sha256):
            copied += artifact.size_bytes
        else:
            harmed.append(artifact.sha256)
    return copied, tuple(harmed)


def _remove_old(folder: Path, keep: int) -> tuple[str, ...]:
    """Remove all but the last ``keep`` backups, then the artifacts that none of them names."""
    old = backups_in(folder)[:-keep]
    for backup in old:
        remove_folder(backup)
    if old:
        kept = {one.sha256 for at in backups_in(folder) for one in read_record(at).artifacts}
        for path in (folder / "blobs").glob("*/*"):
            if path.name not in kept:
                path.unlink()
    return tuple(str(backup) for backup in old)
