"""The time that check-ins wait for the hub, and the poll interval that follows from it.

In one turn the event loop serves every connection that has sent something. So the time since a turn
began is the time that the next request has waited, however many wait with it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import Overloaded
from edgefleet.hub.limits import (
    OVERLOAD_RETRY_S,
    STRETCH_AFTER_S,
    STRETCHED_FOR_S,
    WAITED_AT_MOST_S,
)

_MOST: Final = 4.0  # times the interval


class QueueTime:
    """Refuses check-ins that waited too long, and stretches the interval while some wait."""

    def __init__(
        self,
        clock: Clock,
        *,
        interval_s: float,
        offline_s: float,
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """``soon`` calls a function in the next turn of the loop, by default of the running one."""
        self._clock = clock
        self._soon = soon or _soon
        self._began_s: float | None = None
        self._waited_at: float | None = None  # the last time that a check-in waited for long
        self._usual_s = interval_s
        self._stretched_s = max(interval_s, min(_MOST * interval_s, offline_s / 2))

    def waited_s(self, now_s: float) -> float:
        """How long a request that is served at ``now_s``, by the monotonic clock, has waited."""
        if self._began_s is None:
            self._began_s = now_s
            self._soon(self._turned)
            return 0.0
        waited_s = now_s - self._began_s
        if waited_s > STRETCH_AFTER_S:
            self._waited_at = now_s
        return waited_s

    def check(self, waited_s: float) -> None:
        """Raise Overloaded ``deadline`` if a request has waited too long for its work to begin."""
        if waited_s > WAITED_AT_MOST_S:
            raise Overloaded(
                "deadline",
                f"The check-in waited for {waited_s:.1f} s, more than {WAITED_AT_MOST_S:g} s.",
                retry_after_s=OVERLOAD_RETRY_S,
            )

    def refused(self) -> None:
        """A check-in was refused because the hub is overloaded."""
        self._waited_at = self._clock.monotonic()

    @property
    def interval_s(self) -> float:
        """The poll interval for answers.

        It is longer for ``STRETCHED_FOR_S`` after a check-in waited, but at most half of the time
        after which a device counts as offline. There are two values only, because an agent stores
        each change.
        """
        if self._waited_at is None:
            return self._usual_s
        if self._clock.monotonic() - self._waited_at > STRETCHED_FOR_S:
            self._waited_at = None
            return self._usual_s
        return self._stretched_s

    def _turned(self) -> None:
        self._began_s = None


def _soon(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(call)
