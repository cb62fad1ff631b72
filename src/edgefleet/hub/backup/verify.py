"""Whether a backup, or the data folder of a hub, is whole: every byte is read."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from edgefleet.base.errors import EdgefleetError
from edgefleet.hub.backup.content import read_content
from edgefleet.hub.backup.copying import is_whole
from edgefleet.hub.backup.record import DATABASE, BackupRecord, blob_path, read_record
from edgefleet.hub.datadir import check_secrets
from edgefleet.hub.store.connection import connect_to_read
from edgefleet.hub.store.reader import Reader
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.wire import Wire

Note = Callable[[str], None]


class Verified(Wire, frozen=True, kw_only=True):
    """``faults`` are sentences; none means that all is whole."""

    place: str
    devices: int = 0
    releases: int = 0
    artifacts: int = 0
    faults: tuple[str, ...] = ()


def verify_backup(backup: Path, note: Note = lambda _text: None) -> Verified:
    """Compare each file and each artifact with the record.

    Raises OperatorError ``data_dir_damaged`` or ``store_foreign`` if there is no readable record.
    """
    record = read_record(backup)
    faults = [
        f"{backup / file.name} is missing or damaged."
        for file in record.files
        if not is_whole(backup / file.name, file.size_bytes, file.sha256)
    ]
    faults += _database_faults(backup / DATABASE)
    faults += _artifact_faults(backup.parent, record.artifacts, note)
    return _verified(backup, record, faults)


def verify_data_dir(data_dir: Path, note: Note = lambda _text: None) -> Verified:
    """Check the secrets, the database, the signatures of its releases, and all artifacts."""
    faults = check_secrets(data_dir) + _database_faults(data_dir / DATABASE)
    if faults:
        return Verified(place=str(data_dir), faults=tuple(faults))
    try:
        content = read_content(data_dir / DATABASE)
    except EdgefleetError as error:
        return Verified(place=str(data_dir), faults=(error.message,))
    faults += _artifact_faults(data_dir, content.artifacts, note)
    return Verified(
        place=str(data_dir),
        devices=content.devices,
        releases=content.releases,
        artifacts=len(content.artifacts),
        faults=tuple(faults),
    )


def _database_faults(database: Path) -> list[str]:
    if not database.exists():
        return [f"{database} is missing."]
    try:
        with closing(connect_to_read(database)) as connection:
            found = Reader(connection).check()
    except EdgefleetError as error:
        return [error.message]
    except sqlite3.Error as error:
        found = str(error)
    return [f"{database} is damaged: {found}."] if found else []


def _artifact_faults(root: Path, artifacts: Iterable[Artifact], note: Note) -> list[str]:
    faults, given = list[str](), tuple(artifacts)
    for number, artifact in enumerate(given, start=1):
        note(f"Artifact {number} of {len(given)}: {artifact.size_bytes:,} bytes.")
        path = blob_path(root, artifact.sha256)
        if not is_whole(path, artifact.size_bytes, artifact.sha256):
            faults.append(f"{path} is missing or damaged.")
    return faults


def _verified(backup: Path, record: BackupRecord, faults: list[str]) -> Verified:
    return Verified(
        place=str(backup),
        devices=record.devices,
        releases=record.releases,
        artifacts=len(record.artifacts),
        faults=tuple(faults),
    )
