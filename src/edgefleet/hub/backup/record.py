"""``backup.json``: what a backup contains, and where backups are."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.hub.store.faults import damaged
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.protocol.wire import Wire

RECORD: Final = "backup.json"
DATABASE: Final = "hub.sqlite"
SMALL_FILES: Final = (
    "hub.secret", "operator.token", "hub.json", "release_counts.json", "field_figures.json",
)  # fmt: skip
"""Files of a data folder beside the database, of which a hub makes those that are missing."""
_FORMAT: Final = 1


class BackupFile(Wire, frozen=True, kw_only=True):
    name: str
    size_bytes: int
    sha256: str


class BackupRecord(Wire, frozen=True, kw_only=True):
    """``made_at`` in seconds of Unix time; ``version`` of the edgefleet that made the backup."""

    format: int = _FORMAT
    made_at: float
    version: str
    devices: int
    releases: int
    files: tuple[BackupFile, ...]
    artifacts: tuple[Artifact, ...]


def name_at(now: float) -> str:
    """The name of a backup that is made at ``now``, to the millisecond. Names sort by time."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H-%M-%S}.{int(now % 1 * 1000):03d}Z"


def backups_in(folder: Path) -> list[Path]:
    """The finished backups of a folder of backups, oldest first."""
    return sorted(record.parent for record in folder.glob(f"*/{RECORD}"))


def newest_backup(given: Path) -> Path:
    """``given`` if it is a backup, else the newest one in it.

    Raises OperatorError ``not_found``.
    """
    if (given / RECORD).exists():
        return given
    found = backups_in(given)
    if not found:
        raise OperatorError(
            "not_found",
            f"There is no backup in {given}.",
            field="BACKUP",
            hint="Make one with `edgefleet hub backup FOLDER`.",
        )
    return found[-1]


def read_record(backup: Path) -> BackupRecord:
    """Raises OperatorError ``data_dir_damaged``, or ``store_foreign`` for a later format."""
    path = backup / RECORD
    try:
        record = msgspec.json.decode(path.read_bytes(), type=BackupRecord)
    except (OSError, msgspec.MsgspecError) as error:
        raise damaged(f"{path} cannot be read: {error}.") from error
    if record.format != _FORMAT:
        raise OperatorError(
            "store_foreign", f"{path} has format {record.format}; this version reads {_FORMAT}."
        )
    return record


def blob_path(root: Path, sha256: str) -> Path:
    """Where the artifact is, in the data folder and in a folder of backups."""
    return root / "blobs" / sha256[:2] / sha256


def artifacts_of(manifest: ReleaseManifest) -> tuple[Artifact, ...]:
    """All artifacts that the hub keeps for a release."""
    lineage = () if manifest.lineage is None else (manifest.lineage,)
    variants = (variant.artifact for variant in manifest.variants)
    return (*variants, manifest.golden.artifact, *lineage)
