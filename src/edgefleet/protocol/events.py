"""Events of the hub: what happened, in one order. Streams and web hooks deliver them."""

import re
from typing import Annotated, Final

from msgspec import Meta

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.operator import AuditEntry
from edgefleet.protocol.wire import Wire

KINDS_AT_ONCE: Final = 32
_KIND: Final = re.compile(r"\*|[a-z]{1,20}\.(?:\*|[a-z_]{1,40})")

Kinds = Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=KINDS_AT_ONCE)]
"""Patterns: ``rollout.halt``, ``device.*``, or ``*``. None at all: every kind."""


class Event(Wire, frozen=True, kw_only=True):
    """One thing that happened. ``id`` rises; ``at`` is in seconds since 1970.

    ``kind`` is the object's kind and the action, such as ``rollout.advance`` or ``device.enrol``.
    ``about`` names the object, such as ``device/cam-0419``. ``actor`` is as in ``AuditEntry``.
    """

    id: int
    at: float
    kind: str
    about: str
    actor: str
    detail: str = ""


class EventPage(Wire, frozen=True, kw_only=True):
    """Events, oldest first. ``last`` is the position after them."""

    events: tuple[Event, ...]
    last: int


def event_of(entry: AuditEntry) -> Event:
    """The event of an entry of the audit log, without credential and address of the actor."""
    noun = entry.about.partition("/")[0]
    return Event(
        id=entry.id,
        at=entry.at,
        kind=f"{noun}.{entry.action.replace(' ', '_')}",
        about=entry.about,
        actor=entry.actor,
        detail=entry.detail,
    )


def check_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``kinds`` if each is a pattern. Raises OperatorError ``bad_request``."""
    if len(kinds) > KINDS_AT_ONCE:
        raise OperatorError("bad_request", f"More than {KINDS_AT_ONCE} kinds.", field="kind")
    for kind in kinds:
        if _KIND.fullmatch(kind) is None:
            raise OperatorError(
                "bad_request",
                f"{kind[:80]!r} is not a kind of events.",
                field="kind",
                hint="Give a kind such as rollout.halt, device.* for each of an object, or *.",
            )
    return kinds


def is_wanted(kind: str, kinds: tuple[str, ...]) -> bool:
    """Whether an event of ``kind`` matches one of ``kinds``."""
    noun = kind.partition(".")[0]
    return not kinds or any(one in ("*", kind, f"{noun}.*") for one in kinds)
