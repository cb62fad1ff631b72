"""The inferences as the calls of gRPC ask for them: local alone, or with a fallback."""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from edgefleet.serving.active_release import Release
from edgefleet.serving.grpc.codec import InferCall
from edgefleet.serving.inference import Codec
from edgefleet.serving.model_host import ModelHost

F = TypeVar("F")


class CallInferences(Protocol):
    """See ``inference.Inferences`` and ``hybrid.grpc_question.HybridCalls``."""

    @property
    def host(self) -> ModelHost:
        """The releases that answer."""
        ...

    def find(self, model: str, version: str | None = None) -> Release:
        """See ``Inferences.find``."""
        ...

    def infer(
        self,
        codec: Codec[InferCall, F, bytes],
        request: InferCall,
        model: str,
        version: str | None = None,
    ) -> bytes | Awaitable[bytes]:
        """See ``Inferences.infer``."""
        ...
