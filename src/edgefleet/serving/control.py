"""The agent's control API of the serving process, on a Unix socket for its user only."""

from collections.abc import Awaitable
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.labels import LABELS_PER_ANSWER, Labelled, ModelTruth
from edgefleet.protocol.serving import Apply, Truths
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.model_host import ModelHost

_UNMATCHED: Final = 4 * LABELS_PER_ANSWER  # labels that are known to have no answer


class Control:
    """The handler of the control socket. ``url`` and ``grpc`` are the addresses of inference."""

    def __init__(self, host: ModelHost, url: str, grpc: str = "") -> None:
        self._host = host
        self._url = url
        self._grpc = grpc
        self._unmatched: dict[ModelTruth, None] = {}

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        match request.method, request.path:
            case "GET", "/control/status":
                return self._status()
            case "POST", "/control/apply":
                return self._apply(decode(request.body, Apply))
            case "POST", "/control/truth":
                return self._truth(decode(request.body, Truths))
            case _, "/control/status" | "/control/apply" | "/control/truth":
                raise OperatorError(
                    "method_not_allowed", f"{request.path} does not accept {request.method}."
                )
            case _:
                raise OperatorError("not_found", f"There is no endpoint {request.path}.")

    async def _apply(self, wanted: Apply) -> Reply:
        await self._host.apply(wanted)
        return self._status()

    def _truth(self, given: Truths) -> Reply:
        results = [self._label(one) for one in given.truth]
        return Reply(
            200,
            encode(
                Labelled(
                    labelled=sum(one.labelled for one in results),
                    correct=sum(one.correct for one in results),
                    repeated=sum(one.repeated for one in results),
                    unmatched=sum(one.unmatched for one in results),
                )
            ),
        )

    def _label(self, one: ModelTruth) -> Labelled:
        """Compare a label of the hub with the answers.

        The hub sends a label until it is acknowledged. An answer takes its first label only, so
        only a label without an answer would count twice.
        """
        if one in self._unmatched:
            return Labelled()
        found = self._host.answers.label(one.model, [one.label])
        if found.unmatched:
            if len(self._unmatched) == _UNMATCHED:
                del self._unmatched[next(iter(self._unmatched))]
            self._unmatched[one] = None
        return found

    def _status(self) -> Reply:
        return Reply(200, encode(self._host.status(self._url, self._grpc)))
