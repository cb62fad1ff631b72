"""Schema migrations: numbered steps, each applied once and recorded with its checksum."""

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
    """The migrations of this version of the hub, in order."""
    folder = files("edgefleet.hub.store").joinpath("schema")
    found = [
        Migration(int(entry.name.removesuffix(".sql")), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda step: step.number))


def migrate(connection: sqlite3.Connection, steps: tuple[Migration, ...]) -> None:
    """Apply the missing migrations in order, each in one transaction with its record.

    Numbers may have gaps, and a lower number may arrive after a higher one: lines of development
    take their numbers apart.

    Raises OperatorError ``store_foreign`` if an applied migration is not one of ``steps``: then
    another version wrote the database, and it is not changed.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migration"
        " (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL) STRICT"
    )
    applied = dict(connection.execute("SELECT number, sha256 FROM migration"))
    known = {step.number: step.sha256 for step in steps}
    if not applied.items() <= known.items():
        raise OperatorError(
            "store_foreign", "Another version of the hub wrote the database, or it is damaged."
        )
    for step in steps:
        if step.number in applied:
            continue
        # executescript commits an open transaction first, so the script contains its own.
        record = f"INSERT INTO migration VALUES ({step.number}, '{step.sha256}');"  # noqa: S608 - the number and digest of a packaged file
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step.sql}\n{record}\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
