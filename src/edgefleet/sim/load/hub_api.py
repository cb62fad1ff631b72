"""What simulated devices ask of a hub, whichever hub it is: the real one over HTTP, or one in here.

Calls return at once. ``done`` is called later, in the world's thread, exactly once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgefleet.protocol.device import CheckIn, CheckInAnswer, EnrolAnswer, EnrolRequest
from edgefleet.protocol.release import Envelope

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, or a refusal. ``code`` is one of ``base.errors``."""

    code: str
    detail: str = ""
    next_seq: int | None = None


Done = Callable[[T | Failed], None]


class HubDoor(Protocol):
    """A way to one hub for many devices; ``token`` is the asking device's own credential."""

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None: ...

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None: ...

    def manifest(self, token: str, sha256: str, done: Done[Envelope]) -> None: ...

    def artifact(self, token: str, sha256: str, done: Done[bytes]) -> None:
        """The bytes that the hub has under that digest, as they came: unchecked."""
        ...
