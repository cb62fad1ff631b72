"""The store on SQLite: write-ahead log, every commit synced to the disk, one writer thread.

Reading at start-up goes through the ``load_`` methods; writing returns futures that resolve after
the commit (see ``writer``). ``committed`` callbacks run in the order of the commits.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.hub.limits import LOCK_WAIT_S
from edgefleet.hub.store.migrations import migrate, packaged
from edgefleet.hub.store.records import (
    StoredDevice,
    StoredOutcome,
    StoredRelease,
    StoredStanding,
)
from edgefleet.hub.store.writer import Commit, Writer
from edgefleet.protocol.device import Facts, Outcome, OutcomeKind, Phase
from edgefleet.protocol.operator import AuditEntry, TrustKey
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.rollout import Freeze
from edgefleet.rollout.lifecycle.step import AuditLine

_PRUNED_AFTER_S = 7 * 86_400.0  # how long a claim that nobody used is remembered as expired


class SqliteStore:
    """One database file. ``open`` must run on the loop that will await the writes."""

    def __init__(self, writing: sqlite3.Connection, reading: sqlite3.Connection) -> None:
        self._writing = writing
        self._reading = reading
        self._writer: Writer | None = None

    @classmethod
    def open(cls, path: Path) -> "SqliteStore":
        """Open or make the database. Raises OperatorError ``store_foreign``."""
        writing = _connect(path)
        try:
            migrate(writing, packaged())
        except BaseException:
            writing.close()
            raise
        return cls(writing, _connect(path))

    def start(self, observe: Callable[[Commit], None]) -> None:
        """Begin to write; ``observe`` hears of each commit."""
        self._writer = Writer(self._writing, asyncio.get_running_loop(), observe=observe)

    async def close(self) -> None:
        """Commit what waits, then close."""
        if self._writer is None:
            self._writing.close()
        else:
            await self._writer.close()
        self._reading.close()

    @property
    def started(self) -> bool:
        return self._writer is not None

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            msg = "the store was not started"
            raise AssertionError(msg)
        return self._writer

    # Start-up.

    def load_devices(self) -> Iterator[StoredDevice]:
        """All devices, by rising row."""
        for row, name, at, labels, facts in self._reading.execute(
            "SELECT row, name, enrolled_at, labels, facts FROM device ORDER BY row"
        ):
            yield StoredDevice(
                row, name, at, json.loads(labels), msgspec.json.decode(facts, type=Facts)
            )

    def load_standings(self) -> Iterator[StoredStanding]:
        for row, seen, seq, model, release, phase in self._reading.execute(
            "SELECT row, last_seen, seq, model, release, phase FROM standing"
        ):
            yield StoredStanding(row, seen, seq, model, release, Phase(phase))

    def load_releases(self) -> Iterator[StoredRelease]:
        """All releases, oldest first."""
        for digest, model, release, envelope, signed_by, at in self._reading.execute(
            "SELECT manifest_sha256, model, release, envelope, signed_by, published_at"
            " FROM release ORDER BY number"
        ):
            yield StoredRelease(
                digest,
                model,
                release,
                msgspec.json.decode(envelope, type=Envelope),
                tuple(json.loads(signed_by)),
                at,
            )

    def load_trust(self) -> Iterator[TrustKey]:
        for name, public_key in self._reading.execute(
            "SELECT name, public_key FROM trust ORDER BY name, keyid"
        ):
            yield TrustKey(name=name, public_key=public_key)

    def load_rollouts(self) -> Iterator[str]:
        """The engine's states as JSON, oldest first (ids sort by age)."""
        for (state,) in self._reading.execute("SELECT state FROM rollout ORDER BY id"):
            yield state

    def load_outcomes(self) -> Iterator[StoredOutcome]:
        """All outcomes, in the order in which they were counted."""
        found = self._reading.execute(
            "SELECT device, id, rollout, release, kind, at, reason, detail, received_at, attempt"
            " FROM outcome ORDER BY number"
        )
        for row, id_, rollout, release, kind, at, reason, detail, received, attempt in found:
            outcome = Outcome(
                id=id_,
                rollout=rollout,
                release=release,
                kind=OutcomeKind(kind),
                at=at,
                reason=reason,
                detail=detail,
                attempt=attempt,
            )
            yield StoredOutcome(row, outcome, received)

    def load_freeze(self) -> Freeze:
        """What was said last of the whole fleet."""
        found = self._reading.execute(
            "SELECT value FROM fleet_word WHERE name = 'freeze'"
        ).fetchone()
        return Freeze(frozen=False) if found is None else msgspec.json.decode(found[0], type=Freeze)

    def load_unquarantined(self) -> Iterator[tuple[int, str, int]]:
        """(device, model, rollbacks) of each device that a person took out of quarantine."""
        yield from self._reading.execute("SELECT device, model, rollbacks FROM unquarantined")

    def audit(self, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Entries older than ``before``, newest first."""
        rows = self._reading.execute(
            "SELECT id, at, actor, action, about, detail FROM audit"
            " WHERE id < ? ORDER BY id DESC LIMIT ?",
            ((1 << 62) if before is None else before, limit),
        )
        return tuple(
            AuditEntry(id=id_, at=at, actor=actor, action=action, about=about, detail=detail)
            for id_, at, actor, action, about, detail in rows
        )

    def check_claim(self, digest: str, now: float) -> None:
        """Refuse a claim that is good for nothing, without a turn of the writer.

        Raises DeviceError ``claim_unknown``, ``claim_used`` or ``claim_expired``.
        """
        _labels_given(self._reading, digest, now)

    # Writing.

    def save_outcomes(
        self,
        row: int,
        outcomes: Sequence[Outcome],
        now: float,
        committed: Callable[[tuple[Outcome, ...]], None],
    ) -> "asyncio.Future[tuple[Outcome, ...]]":
        """Keep each outcome that this device has not reported before; the result is those."""

        def job(connection: sqlite3.Connection) -> tuple[Outcome, ...]:
            return tuple(
                outcome
                for outcome in outcomes
                if connection.execute(
                    "INSERT OR IGNORE INTO outcome (device, id, rollout, release, kind, at,"
                    " reason, detail, received_at, attempt)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    ),
                ).rowcount
            )

        return self.writer.submit(job, committed)

    def save_standings(self, standings: Sequence[StoredStanding]) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (at.row, at.last_seen, at.seq, at.model, at.release, at.phase.value)
                    for at in standings
                ],
            )

        return self.writer.submit(job)

    def save_facts(
        self, row: int, facts: Facts, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE device SET facts = ? WHERE row = ?",
                (msgspec.json.encode(facts).decode(), row),
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
        """Keep the engine's state and what the audit log says of it, both or neither."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO rollout VALUES (?, ?)", (rollout, state))
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

    def save_unquarantined(
        self,
        row: int,
        rollbacks: Mapping[str, int],
        line: AuditLine,
        now: float,
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        """``rollbacks`` are those that the device has now, by model."""

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO unquarantined VALUES (?, ?, ?)",
                [(row, model, count) for model, count in rollbacks.items()],
            )
            _audit(connection, [line], now)

        return self.writer.submit(job, committed)

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
                "INSERT INTO claim VALUES (?, ?, ?, NULL)",
                [(digest, text, expires_at) for digest in digests],
            )
            _audit(connection, [line], now)

        return self.writer.submit(job)

    def enrol(
        self,
        claim_digest: str,
        name: str,
        labels: Mapping[str, str],
        facts: Facts,
        *,
        now: float,
        committed: Callable[[StoredDevice], None],
    ) -> "asyncio.Future[StoredDevice]":
        """Trade a claim for the next row; the claim's labels win over the device's own.

        Raises DeviceError ``claim_unknown``, ``claim_used``, ``claim_expired`` or
        ``device_name_taken``; the claim stays good in the last case.
        """

        def job(connection: sqlite3.Connection) -> StoredDevice:
            given = _labels_given(connection, claim_digest, now)
            if connection.execute("SELECT 1 FROM device WHERE name = ?", (name,)).fetchone():
                raise DeviceError(
                    "device_name_taken", f"A device {name!r} is enrolled.", field="name"
                )
            (row,) = connection.execute("SELECT coalesce(max(row) + 1, 0) FROM device").fetchone()
            device = StoredDevice(row, name, now, {**labels, **given}, facts)
            connection.execute(
                "INSERT INTO device VALUES (?, ?, ?, ?, ?)",
                (
                    row,
                    name,
                    now,
                    json.dumps(device.labels),
                    msgspec.json.encode(facts).decode(),
                ),
            )
            connection.execute("UPDATE claim SET used_by = ? WHERE digest = ?", (row, claim_digest))
            _audit(connection, [_line(f"device/{name}", "enrol", f"device/{name}")], now)
            return device

        return self.writer.submit(job, committed)

    def save_trust(
        self, keyid: str, key: TrustKey, now: float, committed: Callable[[None], None]
    ) -> "asyncio.Future[None]":
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (keyid, key.name, key.public_key)
            )
            _audit(connection, [_line("operator", "trust", f"key/{keyid}", key.name)], now)

        return self.writer.submit(job, committed)

    def save_release(
        self, release: StoredRelease, committed: Callable[[bool], None]
    ) -> "asyncio.Future[bool]":
        """Keep a release for ever; False when the very same one is here already.

        Raises PublisherError ``release_exists`` when its name stands for another.
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
                    f"{release.model} {release.release} is published with other content.",
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
            about = f"release/{release.model}/{release.release}"
            line = _line("operator", "publish", about, release.manifest_sha256)
            _audit(connection, [line], release.published_at)
            return True

        return self.writer.submit(job, committed)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OperatorError("store_foreign", f"{path} cannot be read: {error}.") from error
    return connection


def _labels_given(connection: sqlite3.Connection, digest: str, now: float) -> dict[str, str]:
    """The labels that a claim gives, when it is good. Raises DeviceError."""
    claim = connection.execute(
        "SELECT labels, expires_at, used_by FROM claim WHERE digest = ?", (digest,)
    ).fetchone()
    if claim is None:
        raise DeviceError("claim_unknown", "No such claim was made here.", field="claim")
    labels, expires_at, used_by = claim
    if used_by is not None:
        raise DeviceError("claim_used", "The claim was used before.", field="claim")
    if expires_at <= now:
        raise DeviceError("claim_expired", "The claim was not used in time.", field="claim")
    given: dict[str, str] = json.loads(labels)
    return given


def _line(actor: str, action: str, about: str, detail: str = "") -> AuditLine:
    return AuditLine(actor=actor, action=action, about=about, detail=detail)


def _audit(connection: sqlite3.Connection, lines: Sequence[AuditLine], now: float) -> None:
    connection.executemany(
        "INSERT INTO audit (at, actor, action, about, detail) VALUES (?, ?, ?, ?, ?)",
        [(now, line.actor, line.action, line.about, line.detail) for line in lines],
    )
