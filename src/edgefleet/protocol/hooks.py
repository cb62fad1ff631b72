"""Web hooks: the hub posts events to a URL of the operator."""

import hashlib
import hmac
from typing import Annotated, Final

from msgspec import Meta

from edgefleet.protocol.events import Event, Kinds
from edgefleet.protocol.wire import Wire

SIGNATURE: Final = "Edgefleet-Signature"
DELIVERY: Final = "Edgefleet-Delivery"


class AddHook(Wire, frozen=True, kw_only=True):
    """``url`` gets a POST for each event of ``kinds`` from now on. No kinds: every event."""

    url: Annotated[str, Meta(max_length=2_000)]
    kinds: Kinds = ()
    note: Annotated[str, Meta(max_length=200)] = ""


class ChangeHook(Wire, frozen=True, kw_only=True):
    """A disabled hook keeps its position; the events since then follow when it is enabled."""

    enabled: bool


class HookView(Wire, frozen=True, kw_only=True):
    """``position`` is the id of the last event that is done with: delivered, not wanted, or dead.

    ``behind`` counts the events after it. ``missed`` events left the log before they could be
    delivered. ``failure`` is why the last attempt failed; empty after a success. ``retry_at`` is
    the time of the next attempt, in seconds since 1970.
    """

    id: str
    url: str
    kinds: tuple[str, ...]
    note: str = ""
    created_at: float
    enabled: bool = True
    position: int
    behind: int = 0
    missed: int = 0
    dead_letters: int = 0
    failure: str = ""
    retry_at: float | None = None


class Hooks(Wire, frozen=True, kw_only=True):
    hooks: tuple[HookView, ...]


class CreatedHook(Wire, frozen=True, kw_only=True):
    """``secret`` is the key of the signatures, and is shown only now."""

    secret: str
    view: HookView


class RemoveHook(Wire, frozen=True, kw_only=True):
    """The hook delivers nothing more; its dead letters are removed, too."""


class RemovedHook(Wire, frozen=True, kw_only=True):
    id: str


class DeadLetter(Wire, frozen=True, kw_only=True):
    """An event that could not be delivered in ``attempts`` attempts. ``at`` is that of the last."""

    number: int
    event: Event
    at: float
    attempts: int
    reason: str


class DeadLetters(Wire, frozen=True, kw_only=True):
    """Oldest first."""

    letters: tuple[DeadLetter, ...]


class ReplayLetters(Wire, frozen=True, kw_only=True):
    """``numbers`` of dead letters to deliver once more; none: all of the hook."""

    numbers: Annotated[tuple[int, ...], Meta(max_length=1_000)] = ()


class Replayed(Wire, frozen=True, kw_only=True):
    """``delivered`` letters are gone. ``failed`` ones remain, with ``reason`` of the first."""

    delivered: int
    failed: int
    reason: str = ""


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of the header ``SIGNATURE``: ``t=<seconds since 1970>,v1=<HMAC-SHA-256 in hex>``.

    The HMAC is of the time as text, a full stop, and the body; its key is ``secret`` as text.
    """
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
