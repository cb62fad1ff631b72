"""Opaque cursors of lists, and choices in a query.

A cursor names the last entry of a page by its position, which never changes. So entries that come
or go between two pages are neither skipped nor shown twice.
"""

from collections.abc import Sequence

from edgefleet.base.base64url import from_base64url, to_base64url
from edgefleet.base.errors import OperatorError

_POSITION_CHARS = 12  # of the largest position


def cursor(kind: str, position: int | str) -> str:
    """The cursor of the page after the entry at ``position``, for lists of one kind."""
    return to_base64url(f"{kind}:{position}".encode())


def read_text(text: str, kind: str) -> str:
    """The position in a cursor. Raises OperatorError ``cursor_invalid``."""
    try:
        given = from_base64url(text).decode("ascii")
    except ValueError as error:
        raise _invalid(text) from error
    of, colon, position = given.partition(":")
    if of != kind or not colon or not position or cursor(kind, position) != text:
        raise _invalid(text)
    return position


def read_number(text: str, kind: str) -> int:
    """As ``read_text``, for positions that are numbers."""
    position = read_text(text, kind)
    if not position.isdecimal() or len(position) > _POSITION_CHARS:
        raise _invalid(text)
    return int(position)


def read_choice(text: str, choices: Sequence[str], field: str) -> str:
    """``text``, if it is empty or one of ``choices``. Raises OperatorError ``bad_request``."""
    if text and text not in choices:
        raise OperatorError(
            "bad_request",
            f"{text!r} is not a {field}. Choose one of {', '.join(choices)}.",
            field=field,
        )
    return text


def _invalid(text: str) -> OperatorError:
    return OperatorError(
        "cursor_invalid", f"{text[:200]!r} is not a cursor of this list.", field="after"
    )
