"""Maintenance windows: whether one is open at a moment, and when the next one opens.

Windows are in local time. In the night in which the clocks go forward, a window inside the skipped
hour does not open. In the night in which the clocks go back, a window inside the repeated hour
opens twice. The engine has no time zone data: its shell provides the UTC offsets (``Offset``).
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.protocol.rollout import WindowSpec
from edgefleet.rollout.limits import WINDOWS

Offset = Callable[[str, float], int | None]
"""(zone, seconds since the epoch) -> seconds ahead of UTC. None for an unknown time zone."""

DEVICE: Final = "device"
LABEL: Final = "timezone"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DAY_S: Final = 86_400
_EPOCH_WEEKDAY: Final = 3  # 1 January 1970 was a Thursday
_AHEAD_DAYS: Final = 9  # a week, and a day on either side for the UTC offset


def utc_only(zone: str, _at: float) -> int | None:
    """The ``Offset`` of a shell without time zone data."""
    return 0 if zone == "UTC" else None


def check_windows(windows: tuple[WindowSpec, ...], offset: Offset, now: float) -> None:
    """Raises OperatorError ``window_invalid`` with the field at fault."""
    if len(windows) > WINDOWS:
        raise OperatorError(
            "window_invalid",
            f"The plan has {counted(len(windows), 'window')}; at most {WINDOWS} are allowed.",
            field="windows",
        )
    for index, window in enumerate(windows):
        field = f"windows[{index}]"
        for name, clock in (("start", window.start), ("end", window.end)):
            if _CLOCK.fullmatch(clock) is None:
                raise OperatorError(
                    "window_invalid",
                    f"{clock!r} is not a time of day such as 08:30.",
                    field=f"{field}.{name}",
                )
        for day in window.days:
            if day not in DAYS:
                raise OperatorError(
                    "window_invalid",
                    f"{day!r} is not a day: use {', '.join(DAYS)}.",
                    field=f"{field}.days",
                )
        if window.timezone != DEVICE and offset(window.timezone, now) is None:
            raise OperatorError(
                "window_invalid",
                f"Unknown time zone {window.timezone!r}: use a name such as Europe/Berlin.",
                field=f"{field}.timezone",
            )


def is_open(windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float) -> bool:
    """True if a window is open, or if there are none.

    Windows in the time of the device use ``device_zone``.
    """
    return not windows or any(
        begin <= now < end for begin, end in _openings(windows, device_zone, offset, now)
    )


def next_open(
    windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float
) -> float | None:
    """Time at which the next window opens. None if none opens within a week."""
    begins = (begin for begin, _ in _openings(windows, device_zone, offset, now) if begin > now)
    return min(begins, default=None)


def zone_of(device_zone: str | None, offset: Offset, now: float) -> str:
    """The time zone of a device by its label. UTC without a label, or for an unknown time zone."""
    return device_zone if device_zone and offset(device_zone, now) is not None else "UTC"


def _openings(
    windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float
) -> Iterator[tuple[float, float]]:
    """(begin, end) of each opening of each window, from yesterday to a week ahead."""
    for window in windows:
        zone = device_zone if window.timezone == DEVICE else window.timezone
        start_s, end_s = _seconds(window.start), _seconds(window.end)
        if end_s <= start_s:
            end_s += _DAY_S
        local = now + (offset(zone, now) or 0)
        today = int(local // _DAY_S)
        for day in range(today - 1, today + _AHEAD_DAYS):
            if not window.days or DAYS[(day + _EPOCH_WEEKDAY) % 7] in window.days:
                local_interval = (day * _DAY_S + start_s, day * _DAY_S + end_s)
                yield from _in_utc(local_interval, zone, offset)


def _in_utc(
    local_interval: tuple[float, float], zone: str, offset: Offset
) -> Iterator[tuple[float, float]]:
    """The intervals in which the local clock is within ``local_interval``: none, one, or two.

    The UTC offset is constant between two clock changes. So each offset around ``local_interval``
    gives one interval, limited to the time in which that offset applies.
    """
    begin, end = local_interval
    about = {offset(zone, begin - _DAY_S) or 0, offset(zone, end + _DAY_S) or 0}
    if len(about) == 1:
        (ahead,) = about
        yield begin - ahead, end - ahead
        return
    change = _change(zone, offset, begin - _DAY_S, end + _DAY_S)
    before, after = offset(zone, change - 1) or 0, offset(zone, change) or 0
    if begin - before < change:
        yield begin - before, min(end - before, change)
    if end - after > change:
        yield max(begin - after, change), end - after


def _change(zone: str, offset: Offset, low: float, high: float) -> float:
    """The second at which the offset changes between ``low`` and ``high``."""
    first = offset(zone, low)
    bounds = (int(low), int(high) + 1)
    while bounds[1] - bounds[0] > 1:
        middle = sum(bounds) // 2
        bounds = (middle, bounds[1]) if offset(zone, middle) == first else (bounds[0], middle)
    return float(bounds[1])


def _seconds(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60


class Hours:
    """The windows of one rollout. The last answer for each time zone is cached until it changes."""

    def __init__(self, windows: tuple[WindowSpec, ...], offset: Offset) -> None:
        self._windows = windows
        self._offset = offset
        self._known: dict[str, tuple[float, float, bool]] = {}  # zone -> (from, until, open?)
        self._next: dict[str, tuple[float, float | None]] = {}  # zone -> (asked at, next opening)
        self.always = not windows
        self.by_device = any(window.timezone == DEVICE for window in windows)

    def open(self, label: str | None, now: float) -> bool:
        """True if a window is open for a device whose label ``timezone`` is ``label``."""
        if self.always:
            return True
        zone = zone_of(label, self._offset, now)
        known = self._known.get(zone)
        if known is None or not known[0] <= now < known[1]:
            known = self._known[zone] = self._interval(zone, now)
        return known[2]

    def open_since(self, now: float) -> float:
        """Time at which the open window opened. 0 if none is open, or if windows are by device."""
        if not self._windows or self.by_device or not self.open(None, now):
            return 0.0
        return self._known["UTC"][0]

    def next_open(self, label: str | None, now: float) -> float | None:
        """Time at which the next window opens. None if none opens within a week."""
        zone = zone_of(label, self._offset, now)
        asked_at, at = self._next.get(zone, (0.0, None))
        if at is None or not asked_at <= now < at:
            at = next_open(self._windows, zone, self._offset, now)
            self._next[zone] = (now, at)
        return at

    def _interval(self, zone: str, now: float) -> tuple[float, float, bool]:
        openings = tuple(_openings(self._windows, zone, self._offset, now))
        current = [opening for opening in openings if opening[0] <= now < opening[1]]
        if current:
            return max(begin for begin, _ in current), min(end for _, end in current), True
        return (
            now,
            min((begin for begin, _ in openings if begin > now), default=now + _DAY_S),
            False,
        )
