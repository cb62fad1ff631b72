"""Web hooks and dead letters in the store: their records, their writes, and their queries."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgefleet.protocol.events import Event
from edgefleet.protocol.hooks import DeadLetter
from edgefleet.protocol.wire import decode, encode

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class StoredHook:
    id: str
    url: str
    kinds: tuple[str, ...]
    note: str
    secret: str
    created_at: float
    position: int
    missed: int = 0
    enabled: bool = True


def save_hook(hook: StoredHook) -> Job[StoredHook]:
    """Store a new hook, or the new state of a stored one."""

    def job(connection: sqlite3.Connection) -> StoredHook:
        connection.execute(
            "INSERT INTO web_hook VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET position = max(position, excluded.position),"
            " missed = excluded.missed, enabled = excluded.enabled",
            (
                hook.id,
                hook.url,
                json.dumps(hook.kinds),
                hook.note,
                hook.secret,
                hook.created_at,
                hook.position,
                hook.missed,
                hook.enabled,
            ),
        )
        return hook

    return job


def save_positions(hooks: Sequence[tuple[str, int, int]]) -> Job[None]:
    """(id, position, missed) of each hook. A hook that was removed stays so."""

    def job(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "UPDATE web_hook SET position = ?, missed = ? WHERE id = ?",
            [(position, missed, id_) for id_, position, missed in hooks],
        )

    return job


def bury(hook: StoredHook, letter: DeadLetter, most: int) -> Job[None]:
    """Store a dead letter and the position after it. Of a hook the newest ``most`` are kept."""

    def job(connection: sqlite3.Connection) -> None:
        if not connection.execute(
            "UPDATE web_hook SET position = ?, missed = ? WHERE id = ?",
            (letter.event.id, hook.missed, hook.id),
        ).rowcount:
            return  # the hook was removed
        event = encode(letter.event).decode()
        connection.execute(
            "INSERT INTO dead_letter (hook, event, at, attempts, reason) VALUES (?, ?, ?, ?, ?)",
            (hook.id, event, letter.at, letter.attempts, letter.reason),
        )
        connection.execute(
            "DELETE FROM dead_letter WHERE hook = ? AND number <= (SELECT number FROM dead_letter"
            " WHERE hook = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (hook.id, hook.id, most),
        )

    return job


def remove_hook(id_: str) -> Job[None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM dead_letter WHERE hook = ?", (id_,))
        connection.execute("DELETE FROM web_hook WHERE id = ?", (id_,))

    return job


def remove_letter(number: int) -> Job[None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM dead_letter WHERE number = ?", (number,))

    return job


class HookReader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hooks(self) -> Iterator[StoredHook]:
        """All hooks, oldest first."""
        for *texts, position, missed, enabled in self._connection.execute(
            "SELECT id, url, kinds, note, secret, created_at, position, missed, enabled"
            " FROM web_hook ORDER BY created_at, id"
        ):
            id_, url, kinds, note, secret, at = texts
            of = tuple(json.loads(kinds))
            yield StoredHook(id_, url, of, note, secret, at, position, missed, bool(enabled))

    def letter_count(self, hook: str) -> int:
        (count,) = self._connection.execute(
            "SELECT count(*) FROM dead_letter WHERE hook = ?", (hook,)
        ).fetchone()
        return int(count)

    def letters(self, hook: str) -> tuple[DeadLetter, ...]:
        """The dead letters of a hook, oldest first."""
        return tuple(
            DeadLetter(
                number=number,
                event=decode(event.encode(), Event),
                at=at,
                attempts=attempts,
                reason=reason,
            )
            for number, event, at, attempts, reason in self._connection.execute(
                "SELECT number, event, at, attempts, reason FROM dead_letter WHERE hook = ?"
                " ORDER BY number",
                (hook,),
            )
        )
