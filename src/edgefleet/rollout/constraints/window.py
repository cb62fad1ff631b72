"""Maintenance windows: whether one is open at a moment, and when the next one opens.

Everything goes by the clock on the wall. In the night in which the clocks go forward a window
inside the lost hour does not open; when they go back it opens in both of the hours. The engine
knows no zones: its shell says how far each is ahead of UTC (``Offset``).
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import WindowSpec
from edgefleet.rollout.limits import WINDOWS

Offset = Callable[[str, float], int | None]
"""(zone, seconds since the epoch) -> seconds ahead of UTC, None for a zone that there is not."""

DEVICE: Final = "device"
LABEL: Final = "timezone"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DAY_S: Final = 86_400
_EPOCH_WEEKDAY: Final = 3  # 1 January 1970 was a Thursday
_AHEAD_DAYS: Final = 9  # a week, and a day either side for the zone


def utc_only(zone: str, _at: float) -> int | None:
    """The ``Offset`` of a shell that knows no other zone."""
    return 0 if zone == "UTC" else None


def check_windows(windows: tuple[WindowSpec, ...], offset: Offset, now: float) -> None:
    """Raises OperatorError ``window_invalid`` with the field at fault."""
    if len(windows) > WINDOWS:
        raise OperatorError("window_invalid", f"There are {len(windows)} windows.", field="windows")
    for index, window in enumerate(windows):
        field = f"windows[{index}]"
        for name, said in (("start", window.start), ("end", window.end)):
            if _CLOCK.fullmatch(said) is None:
                raise OperatorError(
                    "window_invalid", f"{said!r} is no time of day.", field=f"{field}.{name}"
                )
        for day in window.days:
            if day not in DAYS:
                raise OperatorError(
                    "window_invalid", f"{day!r} is no day of the week.", field=f"{field}.days"
                )
        if window.timezone != DEVICE and offset(window.timezone, now) is None:
            raise OperatorError(
                "window_invalid",
                f"There is no time zone {window.timezone!r}.",
                field=f"{field}.timezone",
            )


def is_open(windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float) -> bool:
    """Is one of the windows open? Without any, always. ``device_zone`` is for those by device."""
    return not windows or any(
        begin <= now < end for begin, end in _spells(windows, device_zone, offset, now)
    )


def next_open(
    windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float
) -> float | None:
    """When a window opens that is not open now; None when none does within a week."""
    begins = (begin for begin, _ in _spells(windows, device_zone, offset, now) if begin > now)
    return min(begins, default=None)


def zone_of(device_zone: str | None, offset: Offset, now: float) -> str:
    """The zone of a device by its label; UTC where it has none, or one that there is not."""
    return device_zone if device_zone and offset(device_zone, now) is not None else "UTC"


def _spells(
    windows: tuple[WindowSpec, ...], device_zone: str, offset: Offset, now: float
) -> Iterator[tuple[float, float]]:
    """From when to when each window is open, about now and in the days ahead."""
    for window in windows:
        zone = device_zone if window.timezone == DEVICE else window.timezone
        start_s, end_s = _seconds(window.start), _seconds(window.end)
        if end_s <= start_s:
            end_s += _DAY_S
        local = now + (offset(zone, now) or 0)
        today = int(local // _DAY_S)
        for day in range(today - 1, today + _AHEAD_DAYS):
            if not window.days or DAYS[(day + _EPOCH_WEEKDAY) % 7] in window.days:
                wall = (day * _DAY_S + start_s, day * _DAY_S + end_s)
                yield from _on_the_wall(wall, zone, offset)


def _on_the_wall(
    wall: tuple[float, float], zone: str, offset: Offset
) -> Iterator[tuple[float, float]]:
    """The moments at which the wall clock is in ``wall``: none, one spell, or two.

    Between two changes of the clocks the wall runs evenly, so each offset that applies around
    then gives one spell, bounded by where that offset applies.
    """
    begin, end = wall
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
    """The second at which the offset changes between two moments with different ones."""
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
    """The windows of one rollout, with the last answer for each zone kept until it changes."""

    def __init__(self, windows: tuple[WindowSpec, ...], offset: Offset) -> None:
        self._windows = windows
        self._offset = offset
        self._known: dict[str, tuple[float, float, bool]] = {}  # zone -> (from, until, open?)
        self._next: dict[str, tuple[float, float | None]] = {}  # zone -> (asked at, next opening)
        self.always = not windows
        self.by_device = any(window.timezone == DEVICE for window in windows)

    def open(self, label: str | None, now: float) -> bool:
        """True when a device whose label ``timezone`` says so may begin."""
        if self.always:
            return True
        zone = zone_of(label, self._offset, now)
        known = self._known.get(zone)
        if known is None or not known[0] <= now < known[1]:
            known = self._known[zone] = self._spell(zone, now)
        return known[2]

    def open_since(self, now: float) -> float:
        """When the window that is open opened, where one is, and for every device; else 0."""
        if not self._windows or self.by_device or not self.open(None, now):
            return 0.0
        return self._known["UTC"][0]

    def next_open(self, label: str | None, now: float) -> float | None:
        """When a window opens that is not open now."""
        zone = zone_of(label, self._offset, now)
        asked_at, at = self._next.get(zone, (0.0, None))
        if at is None or not asked_at <= now < at:
            at = next_open(self._windows, zone, self._offset, now)
            self._next[zone] = (now, at)
        return at

    def _spell(self, zone: str, now: float) -> tuple[float, float, bool]:
        spells = tuple(_spells(self._windows, zone, self._offset, now))
        current = [spell for spell in spells if spell[0] <= now < spell[1]]
        if current:
            return max(begin for begin, _ in current), min(end for _, end in current), True
        return now, min((begin for begin, _ in spells if begin > now), default=now + _DAY_S), False
