"""Offsets of time zones, from the system's zone table or ``tzdata``."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

_QUARTER_S = 900  # every zone changes its offset on a full quarter of an hour


def utc_offset_s(zone: str, at: float) -> int | None:
    """Seconds by which ``zone`` is ahead of UTC at time ``at``. None for an unknown time zone."""
    return _offset_s(zone, int(at // _QUARTER_S))


@lru_cache(maxsize=4096)
def _offset_s(zone: str, quarter: int) -> int | None:
    found = _zone(zone)
    if found is None:
        return None
    offset = datetime.fromtimestamp(quarter * _QUARTER_S, UTC).astimezone(found).utcoffset()
    return None if offset is None else int(offset.total_seconds())


@lru_cache(maxsize=1024)
def _zone(zone: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        return None
    except KeyError:
        return None
