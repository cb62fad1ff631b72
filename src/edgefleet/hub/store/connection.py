"""Connections to the hub's database, also on a disk that cannot be written."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edgefleet.hub.limits import LOCK_WAIT_S
from edgefleet.hub.store.faults import cannot_write, damaged, is_damaged, store_error

_WRITING: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class Opened(NamedTuple):
    """A connection in autocommit mode. ``refused`` is why it will never write, if it will not."""

    connection: sqlite3.Connection
    refused: sqlite3.Error | None = None


def connect(path: Path) -> Opened:
    """Open or create the database. On a full or read-only disk it can only be read.

    Raises OperatorError ``data_dir_damaged``, or DeviceError ``disk_full``, ``disk_readonly`` or
    ``overloaded`` if the database cannot be read either.
    """
    return _typed(path, "", _WRITING)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also while a hub writes. Raises as ``connect`` does."""
    return _typed(path, "?mode=ro", ()).connection


def _typed(path: Path, mode: str, settings: Sequence[str]) -> Opened:
    uri = path.absolute().as_uri()
    try:
        try:
            return Opened(_open(uri + mode, settings))
        except sqlite3.Error as error:
            if not cannot_write(error) or _has_log(path):
                raise
            # Without a log, the file has all that was committed, and no other file is needed.
            return Opened(_open(f"{uri}?mode=ro&immutable=1"), error)
    except sqlite3.Error as error:
        if is_damaged(error):
            raise damaged(f"{path} cannot be read as a database: {error}.") from error
        raise store_error(error) from error


def _open(uri: str, settings: Sequence[str] = ()) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
    )
    try:
        for setting in settings:
            connection.execute(setting)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0
