"""The store on SQLite: write-ahead log, every commit synced to the disk, one writer thread.

``reader`` has the queries. The methods here queue a write and return a future, which resolves after
the commit (see ``writer``). ``committed`` callbacks run in the order of the commits.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.hub.store.connection import Opened, connect
from edgefleet.hub.store.faults import cannot_write, damaged, store_error
from edgefleet.hub.store.log_check import check_log
from edgefleet.hub.store.migrations import migrate, packaged
from edgefleet.hub.store.pages import PageWriter
from edgefleet.hub.store.reader import Reader, claim_labels
from edgefleet.hub.store.records import StoredDevice, StoredRelease, StoredStanding, StoredTruth
from edgefleet.hub.store.writer import Writer
from edgefleet.protocol.device import Facts, ModelReport, Outcome
from edgefleet.protocol.labels import Label, ModelTruth
from edgefleet.protocol.operator import TrustKey
from edgefleet.protocol.rollout import Freeze
from edgefleet.rollout.constraints.ahead import Given
from edgefleet.rollout.lifecycle.step import AuditLine

T = TypeVar("T")
_PRUNED_AFTER_S = 7 * 86_400.0  # retention of an unused claim after it expired


class SqliteStore:
    """One database file. Call ``start`` on the event loop that awaits the writes."""

    def __init__(self, path: Path, writing: Opened, reading: sqlite3.Connection) -> None:
        self._path = path
        self._writing = writing
        self.reader = Reader(reading)
        self.writer: Writer  # from ``start`` on, as ``pages``
        self.pages: PageWriter
        self.started = False

    @classmethod
    def open(cls, path: Path, /, *, must_exist: bool = False) -> "SqliteStore":
        """Open or create the database. On a full or read-only disk it can only be read.

        With ``must_exist``, a database that is missing or has no tables is not created. Raises
        OperatorError ``store_foreign`` or ``data_dir_damaged``, DeviceError ``disk_full`` or
        ``disk_readonly`` if the disk has no room for a migration.
        """
        if must_exist and not path.exists():
            raise damaged(f"{path} is missing: a hub has used this folder.")
        opened = connect(path)
        try:
            _prepare(path, opened.connection, must_exist=must_exist)
        except sqlite3.Error as error:
            opened.connection.close()
            raise store_error(error) from error
        except BaseException:
            opened.connection.close()
            raise
        return cls(path, opened, connect(path).connection)

    def start(self, observe: Callable[[float], None]) -> None:
        """Start the writer thread. ``observe`` is called with the seconds of each commit."""
        self.writer = Writer(
            self._writing.connection,
            asyncio.get_running_loop(),
            observe=observe,
            reopen=self._open_again,
            refused=self._writing.refused,
        )
        self.pages = PageWriter(self.writer)
        self.started = True

    @property
    def fault(self) -> str:
        """The code of the error that kept the last commit from the disk. Empty without one."""
        fault = self.writer.fault if self.started else None
        return fault.code if fault else ""

    async def _open_again(self, old: sqlite3.Connection) -> Opened:
        """Replace both connections. On the loop, where no query of the reader is under way.

        SQLite shares the index of the log between the connections of a process, so none may remain
        that was opened while the disk was read-only.
        """
        self.reader.close()
        old.close()
        opened = connect(self._path)
        self.reader.use(connect(self._path).connection)
        return opened

    async def close(self) -> None:
        """Commit the queued writes, then close both connections."""
        if self.started:
            await self.writer.close()
        else:
            self._writing.connection.close()
        self.reader.close()

    def change(
        self,
        job: Callable[[sqlite3.Connection], T],
        lines: Sequence[AuditLine],
        now: float,
        committed: Callable[[T], None],
    ) -> "asyncio.Future[T]":
        """Run ``job`` and store its audit lines in one transaction."""

        def audited(connection: sqlite3.Connection) -> T:
            result = job(connection)
            _audit(connection, lines, now)
            return result

        return self.writer.submit(audited, committed)

    def settled(self) -> "asyncio.Future[None]":
        """Resolves once every earlier write is durable, and its ``committed`` was called."""
        return self.writer.submit(lambda _connection: None)

    def save_outcomes(
        self,
        row: int,
        outcomes: Sequence[Outcome],
        now: float,
        committed: Callable[[tuple[Outcome, ...]], None],
    ) -> "asyncio.Future[tuple[Outcome, ...]]":
        """Store the outcomes that are not stored yet for this device. The result is those."""

        def job(connection: sqlite3.Connection) -> tuple[Outcome, ...]:
            return tuple(
                outcome
                for outcome in outcomes
                if connection.execute(
                    "INSERT OR IGNORE INTO outcome (device, id, rollout, release, kind, at,"
                    " reason, detail, received_at, attempt, expected, found)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row,
                        outcome.id,
                        outcome.rollout,
                        outcome.release,
                        outcome.kind.value,
                        outcome.at,
                        outcome.reason,
                        outcome.detail,
                        now,
                        outcome.attempt,
                        outcome.wrong_bytes.expected if outcome.wrong_bytes else "",
                        outcome.wrong_bytes.found if outcome.wrong_bytes else "",
                    ),
                ).rowcount
            )

        return self.writer.submit(job, committed)

    def save_standings(self, standings: Sequence[StoredStanding]) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            lists = {at.models: _model_list(at.models) for at in standings}
            connection.executemany(
                "INSERT OR IGNORE INTO model_list (models) VALUES (?)",
                [(text,) for text in lists.values()],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO device_standing SELECT ?, ?, ?, ?, number"
                " FROM model_list WHERE models = ?",
                [(at.row, at.last_seen, at.seq, at.protocol, lists[at.models]) for at in standings],
            )

        return self.writer.submit(job)

    def save_facts(
        self,
        row: int,
        facts: Facts,
        own_labels: Mapping[str, str] | None,
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        """``own_labels`` of the device itself: None keeps those that are stored."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE device SET facts = ?, own_labels = coalesce(?, own_labels) WHERE row = ?",
                (
                    msgspec.json.encode(facts).decode(),
                    None if own_labels is None else json.dumps(dict(own_labels)),
                    row,
                ),
            )

        return self.writer.submit(job, committed)

    def save_rollout(
        self,
        rollout: str,
        state: str,
        lines: Sequence[AuditLine],
        now: float,
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        """Store the engine's state and its audit lines in one transaction."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO rollout SELECT ?, ?, coalesce(max(number), 0) FROM outcome WHERE true"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                (rollout, state),
            )
            _audit(connection, lines, now)

        return self.writer.submit(job, committed)

    def save_freeze(
        self, freeze: Freeze, line: AuditLine, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO fleet_word VALUES ('freeze', ?)",
                (msgspec.json.encode(freeze).decode(),),
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_ahead(self, given: Mapping[int, Given]) -> "asyncio.Future[None]":
        """Store the devices ahead of the hub. Empty: it is not ahead any more."""

        def job(connection: sqlite3.Connection) -> None:
            for row, models in given.items():
                connection.execute("DELETE FROM ahead WHERE row = ?", (row,))
                if models:
                    connection.execute("INSERT INTO ahead VALUES (?, ?)", (row, json.dumps(models)))

        return self.writer.submit(job)

    def save_accepted_restored(
        self, accepted: str, line: AuditLine, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM ahead")
            connection.execute(
                "INSERT OR REPLACE INTO fleet_word VALUES ('restored_accepted', ?)", (accepted,)
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_copied(self, copied: Mapping[int, Mapping[int, float]]) -> "asyncio.Future[None]":
        """Store the runs of copied devices. Empty: the device is not copied any more."""

        def job(connection: sqlite3.Connection) -> None:
            for row, runs in copied.items():
                connection.execute("DELETE FROM copied WHERE row = ?", (row,))
                if runs:
                    connection.execute("INSERT INTO copied VALUES (?, ?)", (row, json.dumps(runs)))

        return self.writer.submit(job)

    def save_copy_cleared(
        self, row: int, line: AuditLine, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM copied WHERE row = ?", (row,))
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_unquarantined(
        self,
        row: int,
        rollbacks: Mapping[str, int],
        line: AuditLine,
        now: float,
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        """``rollbacks`` are the device's current counts of rollbacks, by model."""

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO unquarantined VALUES (?, ?, ?)",
                [(row, model, count) for model, count in rollbacks.items()],
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_truth(
        self,
        row: int,
        model: str,
        labels: Sequence[Label],
        *,
        line: AuditLine,
        now: float,
        committed: Callable[[tuple[StoredTruth, ...]], None],
    ) -> "asyncio.Future[tuple[StoredTruth, ...]]":
        """Store labels for a device. The result has their numbers, which rise."""

        def job(connection: sqlite3.Connection) -> tuple[StoredTruth, ...]:
            stored: list[StoredTruth] = []
            for label in labels:
                number = connection.execute(
                    "INSERT INTO truth (device, model, label, at) VALUES (?, ?, ?, ?)",
                    (row, model, msgspec.json.encode(label).decode(), now),
                ).lastrowid
                truth = ModelTruth(number=number or 1, model=model, label=label)
                stored.append(StoredTruth(row, truth, now))
            _audit(connection, [line], now)
            return tuple(stored)

        return self.writer.submit(job, committed)

    def remove_truth(self, row: int, number: int) -> "asyncio.Future[None]":
        """Remove the labels of a device up to ``number``."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM truth WHERE device = ? AND number <= ?", (row, number))

        return self.writer.submit(job)

    def save_claims(
        self,
        digests: Sequence[str],
        labels: Mapping[str, str],
        expires_at: float,
        line: AuditLine,
        now: float,
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM claim WHERE used_by IS NULL AND expires_at < ?",
                (now - _PRUNED_AFTER_S,),
            )
            text = json.dumps(dict(labels))
            connection.executemany(
                "INSERT INTO claim (digest, labels, expires_at) VALUES (?, ?, ?)",
                [(digest, text, expires_at) for digest in digests],
            )
            _audit(connection, [line], now)

        return self.writer.submit(job)

    def enrol(
        self,
        claim_digest: str | None,
        name: str,
        labels: Mapping[str, str],
        facts: Facts,
        *,
        now: float,
        committed: Callable[[StoredDevice], None],
        key_digest: str = "",
    ) -> "asyncio.Future[StoredDevice]":
        """Exchange a claim for the next row. The labels of the claim are the operator's.

        Without a claim, an operator has allowed the enrolment. ``key_digest`` is that of the
        device's key, see ``Reader.enrolled_with``.

        Raises DeviceError ``claim_unknown``, ``claim_used``, ``claim_expired`` or
        ``device_name_taken``; after ``device_name_taken`` the claim is still valid.
        """

        def job(connection: sqlite3.Connection) -> StoredDevice:
            given: dict[str, str] = {}
            if claim_digest is not None:
                given = claim_labels(connection, claim_digest, now)
            if connection.execute("SELECT 1 FROM device WHERE name = ?", (name,)).fetchone():
                raise DeviceError(
                    "device_name_taken", f"A device {name!r} is already enrolled.", field="name"
                )
            (row,) = connection.execute("SELECT coalesce(max(row) + 1, 0) FROM device").fetchone()
            renamed = connection.execute(
                "SELECT 1 FROM device WHERE enrolled_as = ? AND removed_at IS NULL", (name,)
            ).fetchone()
            enrolled_as = f"{name}/{row}" if renamed else None
            device = StoredDevice(row, name, now, given, facts, labels, enrolled_as)
            connection.execute(
                "INSERT INTO device"
                " (row, name, enrolled_at, labels, facts, own_labels, enrolled_as)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    row,
                    name,
                    now,
                    json.dumps(device.labels),
                    msgspec.json.encode(facts).decode(),
                    json.dumps(dict(labels)),
                    enrolled_as,
                ),
            )
            if claim_digest is not None:
                connection.execute(
                    "UPDATE claim SET used_by = ?, key_digest = ? WHERE digest = ?",
                    (row, key_digest, claim_digest),
                )
            about = f"device/{name}"
            line = AuditLine(actor=about, action="enrol", about=about, detail="", way="claim")
            _audit(connection, [line], now)
            return device

        return self.writer.submit(job, committed)

    def label_device(
        self,
        row: int,
        change: Callable[[dict[str, str]], dict[str, str]],
        line: AuditLine,
        now: float,
        committed: Callable[[dict[str, str]], None],
    ) -> "asyncio.Future[dict[str, str]]":
        """Replace the labels of the operator by ``change`` of them. It may raise OperatorError."""

        def job(connection: sqlite3.Connection) -> dict[str, str]:
            (before,) = connection.execute(
                "SELECT labels FROM device WHERE row = ?", (row,)
            ).fetchone()
            labels = change(json.loads(before))
            connection.execute(
                "UPDATE device SET labels = ? WHERE row = ?", (json.dumps(labels), row)
            )
            _audit(connection, [line], now)
            return labels

        return self.writer.submit(job, committed)

    def rename_device(
        self, row: int, name: str, line: AuditLine, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        """Raises OperatorError ``name_taken``."""

        def job(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM device WHERE name = ?", (name,)).fetchone():
                raise OperatorError("name_taken", f"There is a device {name}.", field="name")
            connection.execute(
                "UPDATE device SET enrolled_as = coalesce(enrolled_as, name), name = ?"
                " WHERE row = ?",
                (name, row),
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def remove_device(
        self, row: int, line: AuditLine, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE device SET removed_at = ?, enrolled_as = coalesce(enrolled_as, name),"
                " name = name || '/' || row WHERE row = ? AND removed_at IS NULL",
                (now, row),
            )
            connection.execute("DELETE FROM truth WHERE device = ?", (row,))
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_trust(
        self,
        keyid: str,
        key: TrustKey,
        line: AuditLine,
        now: float,
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (keyid, key.name, key.public_key)
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

    def save_release(
        self, release: StoredRelease, line: AuditLine, committed: Callable[[bool], None]
    ) -> "asyncio.Future[bool]":
        """Store a release permanently. The result is False if the same release is already stored.

        Raises PublisherError ``release_exists`` if another release has its name.
        """

        def job(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "SELECT manifest_sha256 FROM release WHERE model = ? AND release = ?",
                (release.model, release.release),
            ).fetchone()
            if found is not None:
                if found[0] == release.manifest_sha256:
                    return False
                raise PublisherError(
                    "release_exists",
                    f"{release.model} {release.release} is already published with other content.",
                    field="release",
                )
            connection.execute(
                "INSERT INTO release VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (
                    release.manifest_sha256,
                    release.model,
                    release.release,
                    msgspec.json.encode(release.envelope).decode(),
                    json.dumps(release.signed_by),
                    release.published_at,
                ),
            )
            _audit(connection, [line], release.published_at)
            return True

        return self.writer.submit(job, committed)


def _prepare(path: Path, connection: sqlite3.Connection, *, must_exist: bool) -> None:
    check_log(path, connection)
    if must_exist and connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None:
        raise damaged(f"{path} is empty: a hub has used this folder.")
    migrate(connection, packaged())
    try:
        connection.execute(
            "DELETE FROM model_list WHERE number NOT IN (SELECT models FROM device_standing)"
        )
    except sqlite3.Error as error:
        if not cannot_write(error):  # then the next start does it
            raise


def _model_list(models: Sequence[ModelReport]) -> str:
    """The text of a list of models, as SQLite's ``json_array`` writes it."""
    named = [(one.model, one.release, one.phase.value) for one in models]
    return msgspec.json.encode(named).decode()


def _audit(connection: sqlite3.Connection, lines: Sequence[AuditLine], now: float) -> None:
    connection.executemany(
        "INSERT INTO audit (at, actor, action, about, detail, way, address)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (now, line.actor, line.action, line.about, line.detail, line.way, line.address)
            for line in lines
        ],
    )
