"""The agent's control API of the serving process, on a Unix socket for its user only."""

from collections.abc import Awaitable

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.labels import Labelled
from edgefleet.protocol.serving import Apply, Truths
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.model_host import ModelHost


class Control:
    """The handler of the control socket. ``url`` and ``grpc`` are the addresses of inference."""

    def __init__(self, host: ModelHost, url: str, grpc: str = "") -> None:
        self._host = host
        self._url = url
        self._grpc = grpc

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
        results = [self._host.answers.label(one.model, [one.label]) for one in given.truth]
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

    def _status(self) -> Reply:
        return Reply(200, encode(self._host.status(self._url, self._grpc)))
