"""Figures and codes in words: the filters of the templates."""

from datetime import UTC, datetime

from edgefleet.protocol.rollout import RolloutView, Status
from edgefleet.protocol.why import WAITS


def tone(rollout: RolloutView) -> str:
    """The colour class of a rollout. ``needs`` (red) means that it waits for a person."""
    if any(not WAITS[wait.code].is_by_hand for wait in rollout.why.for_a_person):
        return "needs"
    match rollout.status:
        case Status.HALTED:
            return "needs"
        case Status.PLANNED | Status.PAUSED:
            return "paused"
        case Status.RUNNING:
            return "active"
        case Status.REVERTING | Status.REVERTED | Status.REFUSED:
            return "back"
        case Status.COMPLETED:
            return "good"


def count(value: float) -> str:
    """A whole number with commas between the thousands."""
    return f"{value:,.0f}"


def many(number: float, noun: str) -> str:
    """``1 device``, ``1,003 devices``."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def share(value: float | None) -> str:
    """0.05 as "5 %", None as a dash. Shares below 1 % have more digits; 0 % means exactly zero."""
    if value is None:
        return "\u2013"
    if 0 < value < 0.0001:
        return "< 0.01\u202f%"
    text = f"{value * 100:.{2 if value < 0.01 else 1}f}"
    return f"{text.rstrip('0').rstrip('.')}\u202f%"


def wave_percent(percent: float) -> str:
    """1.0 as "1 %", 0.5 as "0.5 %"."""
    return f"{percent:g}\u202f%"


def figure(value: float | None, digits: int = 2) -> str:
    return "\u2013" if value is None else f"{value:.{digits}f}"


def latency(microseconds: float | None) -> str:
    """Microseconds as text, in µs or ms."""
    if microseconds is None:
        return "\u2013"
    if microseconds < 1000:
        return f"{microseconds:.0f} \u00b5s"
    return f"{microseconds / 1000:.3g} ms"


def size(size_bytes: int) -> str:
    """Bytes, in powers of 1024."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(size_bytes)


def span(seconds: float) -> str:
    """A duration: "45 s", "1 min", "1 h 30 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def instant(at: float) -> str:
    """ISO 8601 in UTC, for ``<time datetime>``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
