"""Queries of the store: the state to restore at the start of the hub, the audit log, claims."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from edgefleet.base.errors import DeviceError
from edgefleet.hub.store.hooks import HookReader
from edgefleet.hub.store.pages import PageReader
from edgefleet.hub.store.people import PeopleReader
from edgefleet.hub.store.records import (
    StoredDevice,
    StoredOutcome,
    StoredRelease,
    StoredStanding,
    StoredTruth,
)
from edgefleet.protocol.device import Facts, ModelReport, Outcome, OutcomeKind, Phase, WrongBytes
from edgefleet.protocol.labels import Label, ModelTruth
from edgefleet.protocol.operator import AuditEntry, TrustKey
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.rollout import Freeze
from edgefleet.rollout.constraints.ahead import Given

_TEXTS_KEPT: Final = 4_096  # decoded texts while devices are read: most are equal to others

_OUTCOME: Final = (
    "device, id, rollout, release, kind, at, reason, detail, received_at, attempt, expected, found"
)
"""The columns of an outcome, in the order in which ``_outcome`` reads them."""

_AUDIT: Final = "id, at, actor, action, about, detail, way, address"
"""The columns of an entry of the audit log: the fields of ``AuditEntry``."""


class Reader:
    """Owns ``connection``, which is never written to, and closes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.pages = PageReader(connection)
        self.people = PeopleReader(connection)
        self.hooks = HookReader(connection)

    def close(self) -> None:
        self._connection.close()

    def check(self) -> str:
        """A fault of the database that SQLite finds. Empty if it finds none.

        Reads the whole database.
        """
        (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        return "" if found == "ok" else str(found)

    def use(self, connection: sqlite3.Connection) -> None:
        """Read from ``connection`` from now on. Queries under way end on the old one."""
        self._connection = connection
        self.pages = PageReader(connection)
        self.people = PeopleReader(connection)
        self.hooks = HookReader(connection)

    def load_devices(self) -> Iterator[StoredDevice]:
        """All devices, in ascending order of rows. Equal facts and equal labels are shared."""
        read_facts = lru_cache(_TEXTS_KEPT)(msgspec.json.Decoder(Facts).decode)
        read_labels = lru_cache(_TEXTS_KEPT)(msgspec.json.Decoder(dict[str, str]).decode)
        for row, name, at, labels, facts, own, first_name, removed_at in self._connection.execute(
            "SELECT row, name, enrolled_at, labels, facts, own_labels, enrolled_as, removed_at"
            " FROM device ORDER BY row"
        ):
            yield StoredDevice(
                row,
                name,
                at,
                read_labels(labels),
                read_facts(facts),
                own_labels=read_labels(own),
                enrolled_as=first_name,
                removed_at=removed_at,
            )

    def load_standings(self) -> Iterator[StoredStanding]:
        lists = {
            number: tuple(
                ModelReport(model=model, release=release, phase=Phase(phase))
                for model, release, phase in json.loads(models)
            )
            for number, models in self._connection.execute("SELECT number, models FROM model_list")
        }
        for row, seen, seq, protocol, models in self._connection.execute(
            "SELECT row, last_seen, seq, protocol, models FROM device_standing"
        ):
            yield StoredStanding(row, seen, seq, protocol, lists[models])

    def load_releases(self) -> Iterator[StoredRelease]:
        """All releases, oldest first."""
        for digest, model, release, envelope, signed_by, at in self._connection.execute(
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
        for name, public_key in self._connection.execute(
            "SELECT name, public_key FROM trust ORDER BY name, keyid"
        ):
            yield TrustKey(name=name, public_key=public_key)

    def load_rollouts(self) -> Iterator[str]:
        """The states of all rollouts as JSON, oldest first (ids sort by age)."""
        for (state,) in self._connection.execute("SELECT state FROM rollout ORDER BY id"):
            yield state

    def outcomes_after(self, number: int) -> Iterator[StoredOutcome]:
        """The outcomes with higher numbers, in the order in which they were stored."""
        found = self._connection.execute(
            f"SELECT {_OUTCOME} FROM outcome WHERE number > ? ORDER BY number",  # noqa: S608 - the names of columns
            (number,),
        )
        yield from map(_outcome, found)

    def outcomes_between(self, rollouts: Sequence[str], last: int) -> Iterator[StoredOutcome]:
        """The outcomes of these rollouts up to the number ``last``, in order."""
        names = json.dumps(list(rollouts))
        (since,) = self._connection.execute(
            "SELECT min(since) FROM rollout WHERE id IN (SELECT value FROM json_each(?))", (names,)
        ).fetchone()
        if since is None or since >= last:
            return
        found = self._connection.execute(
            f"SELECT {_OUTCOME} FROM outcome WHERE number > ? AND number <= ?"  # noqa: S608 - the names of columns
            " AND rollout IN (SELECT value FROM json_each(?)) ORDER BY number",
            (since, last, names),
        )
        yield from map(_outcome, found)

    def outcomes_of(self, row: int, limit: int) -> tuple[StoredOutcome, ...]:
        """The last ``limit`` outcomes of one device, newest first."""
        found = self._connection.execute(
            f"SELECT {_OUTCOME} FROM outcome WHERE device = ? ORDER BY number DESC LIMIT ?",  # noqa: S608 - the names of columns
            (row, limit),
        )
        return tuple(map(_outcome, found))

    def load_freeze(self) -> Freeze:
        """The last freeze or unfreeze of the fleet."""
        found = self._connection.execute(
            "SELECT value FROM fleet_word WHERE name = 'freeze'"
        ).fetchone()
        return Freeze(frozen=False) if found is None else msgspec.json.decode(found[0], type=Freeze)

    def load_ahead(self) -> tuple[dict[int, Given], str]:
        """The devices ahead of the hub, and up to which id rollouts are accepted."""
        given = {
            row: tuple((model, rollout) for model, rollout in json.loads(text))
            for row, text in self._connection.execute("SELECT row, given FROM ahead")
        }
        found = self._connection.execute(
            "SELECT value FROM fleet_word WHERE name = 'restored_accepted'"
        ).fetchone()
        return given, "" if found is None else str(found[0])

    def load_copied(self) -> Iterator[tuple[int, dict[int, float]]]:
        """(device row, runs of agents with their last check-ins) of each copied device."""
        for row, text in self._connection.execute("SELECT row, runs FROM copied"):
            yield row, msgspec.json.decode(text, type=dict[int, float])

    def load_unquarantined(self) -> Iterator[tuple[int, str, int]]:
        """(device row, model, rollbacks) of each device that a person unquarantined."""
        yield from self._connection.execute("SELECT device, model, rollbacks FROM unquarantined")

    def load_truth(self) -> Iterator[StoredTruth]:
        """The labels that wait for their devices, oldest first."""
        for number, row, model, label, at in self._connection.execute(
            "SELECT number, device, model, label, at FROM truth ORDER BY number"
        ):
            read = msgspec.json.decode(label, type=Label)
            yield StoredTruth(row, ModelTruth(number=number, model=model, label=read), at)

    def audit(self, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """At most ``limit`` entries of the audit log with ids below ``before``, newest first."""
        rows = self._connection.execute(
            f"SELECT {_AUDIT} FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - the names of columns
            ((1 << 62) if before is None else before, limit),
        )
        return tuple(map(_audit_entry, rows))

    def audit_after(self, id_: int, limit: int) -> tuple[AuditEntry, ...]:
        """At most ``limit`` entries of the audit log with ids above ``id_``, oldest first."""
        rows = self._connection.execute(
            f"SELECT {_AUDIT} FROM audit WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - the names of columns
            (id_, limit),
        )
        return tuple(map(_audit_entry, rows))

    def last_audit_id(self) -> int:
        """The id of the newest entry. 0 without one."""
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
        return int(last)

    def load_quarantine_noted(self) -> Iterator[tuple[int, str]]:
        """(device row, model) of each quarantine that is in the audit log."""
        yield from self._connection.execute("SELECT device, model FROM quarantine_noted")

    def enrolled_with(self, digest: str, key_digest: str) -> int | None:
        """The row of the device that used the claim with this key. None if none did."""
        found = self._connection.execute(
            "SELECT used_by FROM claim WHERE digest = ? AND key_digest = ? AND key_digest != ''"
            " AND used_by IS NOT NULL",
            (digest, key_digest),
        ).fetchone()
        return None if found is None else int(found[0])

    def check_claim(self, digest: str, now: float) -> None:
        """Reject an invalid claim early, without a write.

        Raises DeviceError ``claim_unknown``, ``claim_used`` or ``claim_expired``.
        """
        claim_labels(self._connection, digest, now)


def _audit_entry(row: tuple[int, float, str, str, str, str, str, str]) -> AuditEntry:
    """The entry in a row of the columns ``_AUDIT``."""
    return AuditEntry(**dict(zip(_AUDIT.split(", "), row, strict=True)))  # type: ignore[arg-type]


def claim_labels(connection: sqlite3.Connection, digest: str, now: float) -> dict[str, str]:
    """The labels of a valid claim.

    Raises DeviceError ``claim_unknown``, ``claim_used`` or ``claim_expired``.
    """
    claim = connection.execute(
        "SELECT labels, expires_at, used_by FROM claim WHERE digest = ?", (digest,)
    ).fetchone()
    if claim is None:
        raise DeviceError("claim_unknown", "This hub has not issued the claim.", field="claim")
    labels, expires_at, used_by = claim
    if used_by is not None:
        raise DeviceError("claim_used", "The claim has already enrolled a device.", field="claim")
    if expires_at <= now:
        raise DeviceError("claim_expired", "The claim has expired.", field="claim")
    given: dict[str, str] = json.loads(labels)
    return given


def _outcome(
    columns: tuple[int, str, str, str, str, float, str, str, float, int, str, str],
) -> StoredOutcome:
    """The outcome in a row of the columns ``_OUTCOME``."""
    row, id_, rollout, release, kind, at, reason, detail, received_at, attempt = columns[:10]
    expected, found = columns[10:]
    outcome = Outcome(
        id=id_,
        rollout=rollout,
        release=release,
        kind=OutcomeKind(kind),
        at=at,
        reason=reason,
        detail=detail,
        attempt=attempt,
        wrong_bytes=WrongBytes(expected=expected, found=found) if expected else None,
    )
    return StoredOutcome(row, outcome, received_at)
