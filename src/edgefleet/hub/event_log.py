"""The event log: the newest entries of the audit log, in order, as events.

The audit log is durable and its ids rise in the order of the commits, so it is the event log as
well: an event exists from the moment in which its change is durable. Readers keep a position each,
and no queue: the newest events are shared in memory, older ones are read from the store.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import dropwhile, islice

from edgefleet.base.errors import OperatorError
from edgefleet.hub.limits import EVENT_PAGE, EVENTS_IN_MEMORY, EVENTS_KEPT, EVENTS_TOGETHER_S
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.events import Event, event_of


class EventLog:
    """Call ``committed`` after each commit of the store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._newest: deque[Event] = deque(maxlen=EVENTS_IN_MEMORY)
        self._last = 0
        self._woken_at = 0
        self._is_read = False  # up to the last commit
        self._more = asyncio.Event()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def last(self) -> int:
        """The id of the newest event. 0 without one."""
        self._read()
        return self._last

    @property
    def first(self) -> int:
        """The lowest position from which every event is still in the log."""
        return max(0, self.last - EVENTS_KEPT)

    def check(self, position: int) -> None:
        """Raise OperatorError ``events_gone`` for a position that is not in the log."""
        if position > self.last:
            raise OperatorError(
                "events_gone",
                f"Event {position} is not in the log, whose last one is {self.last}: it is that of "
                "another hub, or the hub was restored from an older copy.",
                field="after",
            )
        if position < self.first:
            raise OperatorError(
                "events_gone",
                f"The events after {position} are no longer in the log, which begins after "
                f"{self.first}.",
                field="after",
            )

    def after(self, position: int, limit: int = EVENT_PAGE) -> Sequence[Event]:
        """At most ``limit`` events after ``position``. Raises OperatorError ``events_gone``."""
        self.check(position)
        if position >= self._last:
            return ()
        if self._newest and self._newest[0].id <= position + 1:
            later = dropwhile(lambda event: event.id <= position, self._newest)
            return tuple(islice(later, limit))
        return tuple(map(event_of, self._store.reader.audit_after(position, limit)))

    async def wait(self, position: int, timeout_s: float) -> None:
        """Return when there are events after ``position``, or after ``timeout_s``."""
        if position < self.last:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._more.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    def committed(self) -> None:
        """Changes are durable. Many commits within ``EVENTS_TOGETHER_S`` wake readers once."""
        self._is_read = False
        if self._waiting and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(EVENTS_TOGETHER_S, self._wake)

    def close(self) -> None:
        """The store is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        self._timer = None
        if self.last > self._woken_at:  # not ``_last``: another reader may have moved it
            self._woken_at = self._last
            more, self._more = self._more, asyncio.Event()
            more.set()

    def _read(self) -> None:
        """Read the events since the last read; after a long pause only the newest."""
        if self._is_read:
            return
        last = self._store.reader.last_audit_id()
        if last > self._last:
            since = max(self._last, last - EVENTS_IN_MEMORY)
            if since > self._last:
                self._newest.clear()
            entries = self._store.reader.audit_after(since, EVENTS_IN_MEMORY)
            self._newest.extend(map(event_of, entries))
            self._last = last
        self._is_read = True
