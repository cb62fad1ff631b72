"""The inferences as the REST protocols ask for them: local alone, or with a fallback."""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from edgefleet.http1.message import Reply, Request
from edgefleet.serving.active_release import Release
from edgefleet.serving.inference import Codec

F = TypeVar("F")


class RestInferences(Protocol):
    """See ``inference.Inferences`` and ``hybrid.door.Hybrid``."""

    def find(self, model: str, version: str | None = None) -> Release:
        """See ``Inferences.find``."""
        ...

    def infer(
        self,
        codec: Codec[Request, F, Reply],
        request: Request,
        model: str,
        version: str | None = None,
    ) -> Reply | Awaitable[Reply]:
        """See ``Inferences.infer``."""
        ...
