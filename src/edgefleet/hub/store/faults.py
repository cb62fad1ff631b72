"""Errors of SQLite as typed errors: what the disk or another program caused, and what is damaged.

The codes are those of sqlite.org/rescode.html.
"""

import json
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import msgspec

from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError

LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_READ_ONLY: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: BaseException) -> int:
    """The primary result code of ``error``. 0 if it is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_read_only(error: BaseException) -> bool:
    return primary_code(error) in _READ_ONLY


def is_damaged(error: BaseException) -> bool:
    return primary_code(error) in _DAMAGED


def cannot_write(error: BaseException) -> bool:
    """True if the disk is full or read-only: what is stored can still be read."""
    return primary_code(error) in (*_NO_ROOM, *_READ_ONLY)


def store_error(error: Exception) -> Exception:
    """``error`` as a typed error if the disk, another program or damage caused it, else unchanged.

    DeviceError ``disk_full``, ``disk_readonly`` or ``overloaded``, OperatorError
    ``data_dir_damaged``.
    """
    code = primary_code(error)
    if code in _NO_ROOM:
        return DeviceError(
            "disk_full",
            f"The hub cannot write to its database: {error}.",
            hint="Free space on the hub's disk.",
        )
    if code in _READ_ONLY:
        return DeviceError(
            "disk_readonly",
            f"The hub cannot write to its database: {error}.",
            hint="Mount the hub's disk for writing.",
        )
    if is_damaged(error):
        return damaged(f"The hub's database is damaged: {error}.")
    if code in LOCKED:
        return DeviceError("overloaded", "Another program has locked the hub's database.")
    return error


def damaged(message: str) -> OperatorError:
    """The error for a data folder that a hub cannot start with."""
    return OperatorError("data_dir_damaged", message, field="data_dir")


@contextmanager
def readable_rows(check: Callable[[], str]) -> Generator[None]:
    """Raise OperatorError ``data_dir_damaged`` if stored rows cannot be read because of damage.

    SQLite has no checksums of pages: a damaged page may be well formed and have wrong values, which
    raise any error where they are used. ``check`` then says what is wrong with the database. Empty:
    nothing, so that the error is raised as it is.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(f"A row of the hub's database is damaged: {error}.") from error
    except EdgefleetError as error:
        raise damaged(f"A row of the hub's database is damaged: {error.message}") from error
    except Exception as error:
        if found := check():
            raise damaged(f"The hub's database is damaged: {found}.") from error
        raise
