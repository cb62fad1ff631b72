"""The hub's interface for simulated devices: a real hub over HTTP, or a stand-in in this process.

Calls return at once. Later ``done`` is called exactly once, in the event loop's thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgefleet.protocol.device import CheckIn, CheckInAnswer, EnrolAnswer, EnrolRequest
from edgefleet.protocol.release import Envelope

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, or an error. ``code`` is an error code of ``base.errors``."""

    code: str
    detail: str = ""
    next_seq: int | None = None


Done = Callable[[T | Failed], None]


class HubApi(Protocol):
    """Requests of many devices to one hub. ``token`` is the credential of the calling device."""

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None: ...

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None: ...

    def manifest(self, token: str, sha256: str, done: Done[Envelope]) -> None: ...

    def artifact(self, token: str, sha256: str, done: Done[bytes]) -> None:
        """Download the artifact with this digest. The bytes are not verified."""
        ...
