"""Requests that are refused before the model runs, by kind.

A client cannot know that a device has switched to a release with another interface. So refusals
are evidence about the release, and each has its kind and says how request and release differ.
"""

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.protocol.device import Refusal

_SHOWN_CHARS = 48  # of a name that a client sent


class Refused(OperatorError):  # noqa: N818 - the request is refused; nothing failed
    """A request that cannot reach the model. ``sent`` and ``wanted`` say how the two differ."""

    def __init__(
        self,
        kind: Refusal,
        message: str,
        *,
        field: str,
        code: str = "bad_request",
        hint: str | None = None,
        sent: str = "",
        wanted: str = "",
    ) -> None:
        super().__init__(code, message, field=field, hint=hint)
        self.kind = kind
        self.sent = sent
        self.wanted = wanted


def kind_of(error: EdgefleetError) -> Refusal:
    """The kind of a refusal that any module raised."""
    if isinstance(error, Refused):
        return error.kind
    match error.code:
        case "overloaded":
            return Refusal.TIMEOUT if error.reason == "deadline" else Refusal.QUEUE_FULL
        case "timeout":
            return Refusal.TIMEOUT
        case _:
            return Refusal.MALFORMED


def example_of(error: EdgefleetError, release: str) -> str:
    """How the request and the release differ: ``clients send `pixels`, release 3 wants `image```.

    Empty if the refusal does not depend on the interface of the release.
    """
    if not isinstance(error, Refused) or not error.sent:
        return ""
    return f"clients send {error.sent}, release {release} wants {error.wanted}"


def shown(name: str) -> str:
    """A name from a request, bounded and printable, for people."""
    printable = "".join(one if one.isprintable() and one != "`" else "?" for one in name)
    cut = printable if len(printable) <= _SHOWN_CHARS else f"{printable[: _SHOWN_CHARS - 1]}…"
    return f"`{cut}`"
