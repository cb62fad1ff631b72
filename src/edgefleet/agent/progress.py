"""The progress of the download: a log line now and then, and a text for the status."""

from collections.abc import Callable, Iterator
from typing import Final

from edgefleet.agent.log import LOGGER

_EVERY_S: Final = 10.0
_MIB: Final = 1 << 20


class Progress:
    """Follows one download at a time. ``text`` is empty without one; any thread may read it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.text = ""
        self._monotonic = monotonic

    def follow(
        self, what: str, chunks: Iterator[bytes], have: int, size_bytes: int
    ) -> Iterator[bytes]:
        """The chunks of a file of ``size_bytes``, of which the device has ``have`` already."""
        began, logged_at, first = self._monotonic(), self._monotonic(), have
        try:
            for chunk in chunks:
                yield chunk
                have += len(chunk)
                share = min(100, 100 * have // max(1, size_bytes))
                self.text = f"{share} % of {size_bytes / _MIB:.1f} MiB"
                now = self._monotonic()
                if now - logged_at >= _EVERY_S:
                    logged_at = now
                    rate = (have - first) / max(1e-9, now - began) / _MIB
                    LOGGER.info("%s: %s downloaded, %.2f MiB/s.", what, self.text, rate)
        finally:
            self.text = ""
