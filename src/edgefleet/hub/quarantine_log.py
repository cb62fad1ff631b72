"""Puts into the audit log that devices came into quarantine, once for each device and model.

Quarantine follows from the devices' reports, so no command says that it began. The devices whose
line is written are stored in the same transaction as the line.
"""

import sqlite3

from edgefleet.base.clock import Clock
from edgefleet.base.texts import counted
from edgefleet.hub.limits import QUARANTINES_AT_ONCE
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.lifecycle.step import AuditLine

Places = set[tuple[int, str]]
"""Of a row and a model."""


class QuarantineLog:
    def __init__(self, store: SqliteStore, engine: Engine, clock: Clock) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._noted: Places = set()

    def load(self) -> None:
        self._noted = set(self._store.reader.load_quarantine_noted())

    async def tick(self) -> None:
        """Note the devices that are in quarantine since the last tick, and forget those that left.

        Raises DeviceError if the store fails; the next tick tries again.
        """
        engine = self._engine
        now = {
            (row, model)
            for model in engine.quarantine_models()
            for row in engine.quarantined_rows(model).tolist()
        }
        if now == self._noted:
            return
        new = sorted(now - self._noted)[:QUARANTINES_AT_ONCE]
        gone = self._noted - now
        lines = [self._line(row, model) for row, model in new]
        noted = (self._noted | set(new)) - gone

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR IGNORE INTO quarantine_noted VALUES (?, ?)", new)
            connection.executemany(
                "DELETE FROM quarantine_noted WHERE device = ? AND model = ?", sorted(gone)
            )

        def committed(_none: None) -> None:
            self._noted = noted

        await self._store.change(job, lines, self._clock.now(), committed)

    def _line(self, row: int, model: str) -> AuditLine:
        rollbacks = counted(self._engine.rollbacks(model, row), "rollback")
        return AuditLine(
            actor="gate",
            action="quarantine",
            about=f"device/{self._engine.fleet.name(row)}",
            detail=f"{rollbacks} of {model}",
        )
