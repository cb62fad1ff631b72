"""The snapshot of finished rollouts: one page for each, and the last outcome that they contain.

A page is written in parts, each in a commit of its own, under the next generation. ``publish``
makes all new pages valid in one commit. So the snapshot of before is valid until then, whenever the
hub stops.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgefleet.base.ids import sha256_hex
from edgefleet.hub.store.writer import Writer

PART_BYTES: Final = 256 << 10  # so that the commit of a part takes milliseconds
COUNTED_AT_ONCE: Final = 50_000  # outcomes, in one job of the writer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last snapshot. ``outcome`` is the number of the last outcome in it; 0 without one."""

    generation: int = 0
    outcome: int = 0
    counts: Mapping[str, int] = field(default_factory=dict[str, int])  # of these, by kind


@dataclass(frozen=True, slots=True)
class StoredPage:
    """``body`` is empty if a part is missing or the digest is wrong."""

    rollout: str
    body: bytes


class PageReader:
    """The queries of the snapshot, on a connection that is only read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def snapshot(self) -> Snapshot | None:
        """The snapshot. None if it is damaged, or names outcomes that are not there."""
        found = self._connection.execute(
            "SELECT generation, outcome, counts, sha256 FROM snapshot"
        ).fetchone()
        if found is None:
            return Snapshot()
        generation, outcome, counts, sha256 = found
        (last,) = self._connection.execute("SELECT max(number) FROM outcome").fetchone()
        if sha256 != _sha256(generation, outcome, counts) or outcome > (last or 0):
            return None
        return Snapshot(generation, outcome, msgspec.json.decode(counts, type=dict[str, int]))

    def pages(self) -> Iterator[StoredPage]:
        """All pages, oldest rollout first."""
        for rollout, generation, parts, sha256 in self._connection.execute(
            "SELECT rollout, generation, parts, sha256 FROM page ORDER BY rollout"
        ):
            found = self._connection.execute(
                "SELECT body FROM page_part WHERE rollout = ? AND generation = ? ORDER BY part",
                (rollout, generation),
            ).fetchall()
            body = b"".join(part for (part,) in found)
            is_whole = len(found) == parts and sha256_hex(body) == sha256
            yield StoredPage(rollout, body if is_whole else b"")


class PageWriter:
    """The writes of the snapshot. Each is one short job of the writer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def last_outcome(self, committed: Callable[[int], None]) -> "asyncio.Future[int]":
        """The number of the last outcome.

        When ``committed`` is called, memory has all outcomes up to this number and no other.
        """

        def job(connection: sqlite3.Connection) -> int:
            (last,) = connection.execute("SELECT max(number) FROM outcome").fetchone()
            return last or 0

        return self._writer.submit(job, committed)

    async def count(self, after: int, last: int) -> dict[str, int]:
        """The number of outcomes by kind, from the one after ``after`` to ``last``."""
        counts: dict[str, int] = {}
        for start in range(after, last, COUNTED_AT_ONCE):
            end = min(last, start + COUNTED_AT_ONCE)
            for kind, count in await self._writer.submit(_counts_between(start, end)):
                counts[kind] = counts.get(kind, 0) + count
        return counts

    async def write(self, generation: int, rollout: str, body: bytes) -> None:
        """Write a page, which is not valid before ``publish``."""
        for part, start in enumerate(range(0, len(body), PART_BYTES)):
            row = (rollout, generation, part, body[start : start + PART_BYTES])
            await self._writer.submit(_part(row))

    def publish(
        self,
        snapshot: Snapshot,
        pages: Mapping[str, bytes],
        removed: Sequence[str],
        committed: Callable[[None], None],
    ) -> "asyncio.Future[None]":
        """Replace the snapshot. ``pages`` were written in its generation.

        The pages of the rollouts in ``removed`` are not valid any more.
        """
        text = msgspec.json.encode(dict(snapshot.counts)).decode()
        at = (snapshot.generation, snapshot.outcome, text)

        def job(connection: sqlite3.Connection) -> None:
            for rollout in removed:
                connection.execute("DELETE FROM page WHERE rollout = ?", (rollout,))
            connection.executemany(
                "INSERT OR REPLACE INTO page VALUES (?, ?, ?, ?)",
                [
                    (rollout, snapshot.generation, -(-len(body) // PART_BYTES), sha256_hex(body))
                    for rollout, body in pages.items()
                ],
            )
            connection.execute(
                "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?)", (*at, _sha256(*at))
            )

        return self._writer.submit(job, committed)

    def clean(self) -> "asyncio.Future[None]":
        """Remove the parts that no page names."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM page_part WHERE NOT EXISTS (SELECT 1 FROM page WHERE"
                " page.rollout = page_part.rollout AND page.generation = page_part.generation)"
            )

        return self._writer.submit(job)


def _counts_between(start: int, end: int) -> Callable[[sqlite3.Connection], list[tuple[str, int]]]:
    def job(connection: sqlite3.Connection) -> list[tuple[str, int]]:
        return connection.execute(
            "SELECT kind, count(*) FROM outcome WHERE number > ? AND number <= ? GROUP BY kind",
            (start, end),
        ).fetchall()

    return job


def _part(row: tuple[str, int, int, bytes]) -> Callable[[sqlite3.Connection], None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO page_part VALUES (?, ?, ?, ?)", row)

    return job


def _sha256(generation: int, outcome: int, counts: str) -> str:
    return sha256_hex(f"{generation} {outcome} {counts}".encode())
