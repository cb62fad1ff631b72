"""The schema, in numbered steps; each is applied once and remembered with its checksum."""

import sqlite3
from dataclasses import dataclass
from importlib.resources import files

from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import sha256_hex


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    sql: str

    @property
    def sha256(self) -> str:
        return sha256_hex(self.sql.encode())


def packaged() -> tuple[Migration, ...]:
    """The steps that this version of the hub knows, in order."""
    folder = files("edgefleet.hub.store").joinpath("schema")
    found = [
        Migration(int(entry.name.removesuffix(".sql")), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda step: step.number))


def migrate(connection: sqlite3.Connection, steps: tuple[Migration, ...]) -> None:
    """Bring the database to the newest step. Raises OperatorError ``store_foreign``.

    A database whose applied steps are not the first of ``steps``, byte for byte, was written by
    another version: it is left as it is. Each step and its record are one transaction.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migration"
        " (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL) STRICT"
    )
    applied = connection.execute("SELECT number, sha256 FROM migration ORDER BY number").fetchall()
    known = [(step.number, step.sha256) for step in steps]
    if applied != known[: len(applied)]:
        raise OperatorError(
            "store_foreign", "The database was written by another version of the hub."
        )
    for step in steps[len(applied) :]:
        # executescript commits what is open before it starts, so the transaction is in the script.
        record = f"INSERT INTO migration VALUES ({step.number}, '{step.sha256}');"  # noqa: S608 - a number and a digest of our own file
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step.sql}\n{record}\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
