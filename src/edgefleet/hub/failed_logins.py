"""Failed logins in the audit log: counted, and at most one line a minute, whatever is tried.

A line names users and addresses with the most failures. A name that no user has is not stored: it
may be a password that was typed into the wrong field.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.hub.limits import FAILED_ADDRESSES, FAILED_LOGINS_S, FAILED_SHOWN
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.rollout.lifecycle.step import AuditLine

OTHERS: Final = "others"


class FailedLogins:
    """Counts since the last line. A kill of the hub loses those of the last minute."""

    def __init__(self, store: SqliteStore, clock: Clock, is_user: Callable[[str], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_user = is_user
        self._written_at = clock.monotonic() - FAILED_LOGINS_S
        self._clear()

    def note(self, way: str, name: str, address: str) -> None:
        """Count a login that failed. ``way`` is one of a few words, such as ``password``."""
        self._ways[way] += 1
        self._users[name if self._is_user(name) else OTHERS] += 1
        known = address in self._addresses or len(self._addresses) < FAILED_ADDRESSES
        self._addresses[address if known else OTHERS] += 1

    async def flush(self) -> None:
        """Store a line if there is news and the last line is a minute old.

        Raises DeviceError ``overloaded`` or ``disk_full``; the next call tries again.
        """
        now = self._clock.monotonic()
        if not self._ways or now - self._written_at < FAILED_LOGINS_S:
            return
        detail = (
            f"{self._ways.total()} failed: {_most(self._ways)}; users: {_most(self._users)}; "
            f"from: {_most(self._addresses)}"
        )
        line = AuditLine(actor="hub", action="login_failed", about="logins", detail=detail)
        await self._store.change(lambda _connection: None, [line], self._clock.now(), self._written)

    def _written(self, _none: None) -> None:
        self._written_at = self._clock.monotonic()
        self._clear()

    def _clear(self) -> None:
        self._ways: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()


def _most(counts: Counter[str]) -> str:
    """The keys with the highest counts, and the rest together."""
    rest = counts[OTHERS]
    named = [(key, count) for key, count in counts.most_common() if key != OTHERS]
    shown = [f"{key or 'unknown'} {count}" for key, count in named[:FAILED_SHOWN]]
    rest += sum(count for _, count in named[FAILED_SHOWN:])
    return ", ".join([*shown, *([f"{OTHERS} {rest}"] if rest else [])])
