"""Texts that must fit into a limit, and counts and times as text."""

from datetime import UTC, datetime
from typing import Final

_MIDDLE: Final = " ... "


def shortened(text: str, chars: int) -> str:
    """``text`` with at most ``chars`` characters.

    A longer text loses its middle. Twice as much is kept of its end as of its begin, because an
    error ends with its cause.
    """
    if len(text) <= chars:
        return text
    head = (chars - len(_MIDDLE)) // 3
    return f"{text[:head]}{_MIDDLE}{text[len(text) - (chars - len(_MIDDLE) - head) :]}"


def one_line(text: str) -> str:
    """``text`` on one line. Each control character, such as that of a terminal, is replaced."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.splitlines()))


def utc_text(at: float) -> str:
    """A time with its date and zone: ``2026-09-22 14:00:03 UTC``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def counted(count: int, noun: str) -> str:
    """``1 device``, ``2 devices``: the count with its noun in the singular or plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def are(count: int) -> str:
    """The verb behind ``counted``: ``is`` or ``are``."""
    return "is" if count == 1 else "are"
