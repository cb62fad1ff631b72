"""The Open Inference Protocol v2 over REST, compatible with KServe, Triton and their clients.

``model_version`` of an answer is the release that computed it, and the header
``edgefleet-generation`` the set of models that it belongs to: a client that asks two models in turn
sees whether one set answered both. The id of an answer is that of the request, or one that the
server makes: ``POST /v2/models/MODEL/truth`` labels the answer by it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from edgefleet import __version__
from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.labels import Truth
from edgefleet.protocol.wire import decode
from edgefleet.serving import model_facts, oip_services
from edgefleet.serving.active_release import Release
from edgefleet.serving.inference import Inferences
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip_codec import RestCodec, has_long_json
from edgefleet.serving.rest_inferences import RestInferences
from edgefleet.serving.routes import Endpoint, Endpoints, endpoint_of, json_reply

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)


class OpenInference:
    """The handler of the paths below ``/v2``."""

    def __init__(self, host: ModelHost, inferences: RestInferences | None = None) -> None:
        self._host = host
        self._inferences: RestInferences = inferences or Inferences(host)
        self._codec = RestCodec(host.bodies)

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        endpoints = self.endpoints(request.path.split("/")[1:])
        return endpoint_of(request.method, request.path, endpoints)(request)

    def endpoints(self, path: list[str]) -> Endpoints:
        """The endpoints of a path, given by its parts. Empty if there is no such path."""
        match path:
            case ["v2", "models", "stats"]:
                return {"GET": self._all_statistics}
            case ["v2", "models", model, "versions", version, *rest]:
                return self._of_model(model, version, rest)
            case ["v2", "models", model, *rest]:
                return self._of_model(model, None, rest)
            case ["v2"] | ["v2", ""]:
                return {"GET": _server}
            case ["v2", "health", "live"]:
                return {"GET": lambda _: json_reply({"live": True})}
            case ["v2", "health", "ready"]:
                return {"GET": self.ready}
            case ["v2", "repository", "index"] | ["v2", "repository", _, "index"]:
                return {"POST": self._index}
            case ["v2", "repository", "models", _, "load" | "unload"] | [
                "v2",
                "repository",
                _,
                "models",
                _,
                "load" | "unload",
            ]:
                return {"POST": oip_services.refuse_load}
            case ["v2", "trace", "setting"]:
                return oip_services.trace_endpoints()
            case ["v2", "logging"]:
                return oip_services.logging_endpoints()
            case ["v2", "systemsharedmemory" | "cudasharedmemory", *rest]:
                return oip_services.shared_memory_endpoints(rest)
            case _:
                return {}

    def ready(self, _: Request) -> Reply:
        """200 if every model answers. Raises DeviceError ``not_ready``."""
        self._host.check_ready()
        return json_reply({"ready": True})

    def _of_model(self, model: str, version: str | None, rest: list[str]) -> Endpoints:
        show: Callable[[Release], object]
        match rest:
            case ["infer"]:
                return {"POST": partial(self._infer, model, version)}
            case ["truth"] if version is None:
                return {"POST": partial(self._truth, model=model)}
            case ["trace", "setting"]:
                return oip_services.trace_endpoints()
            case [] | [""]:
                show = model_facts.metadata
            case ["ready"]:
                show = _ready
            case ["config"]:
                show = model_facts.configuration
            case ["stats"]:
                show = self._statistics
            case _:
                return {}
        return {"GET": self._about(show, model, version)}

    def _about(
        self, show: Callable[[Release], object], model: str, version: str | None
    ) -> Endpoint:
        return lambda _: json_reply(show(self._inferences.find(model, version)))

    def _infer(self, model: str, version: str | None, request: Request) -> Reply | Awaitable[Reply]:
        if has_long_json(request):
            return self._infer_aside(request, model, version)
        return self._inferences.infer(self._codec, request, model, version)

    async def _infer_aside(self, request: Request, model: str, version: str | None) -> Reply:
        read = await self._codec.read_aside(request)
        answer = self._inferences.infer(self._codec, read, model, version)
        return answer if isinstance(answer, Reply) else await answer

    def _truth(self, request: Request, *, model: str) -> Reply:
        """Compare labels of a local program with the answers, as ``/control/truth`` does."""
        self._inferences.find(model)
        truth = decode(request.body, Truth)
        for place, label in enumerate(truth.labels):
            if label.fault:
                raise OperatorError("bad_request", label.fault, field=f"labels[{place}]")
        return json_reply(self._host.answers.label(model, truth.labels))

    def _index(self, request: Request) -> Reply:
        wanted = decode(request.body or b"{}", oip_services.RepositoryIndexRequest)
        return json_reply(model_facts.index(self._host, ready=wanted.ready is True))

    def _statistics(self, active: Release) -> object:
        return {"model_stats": [model_facts.statistics(self._host, active)]}

    def _all_statistics(self, _: Request) -> Reply:
        return json_reply(
            {
                "model_stats": [
                    model_facts.statistics(self._host, active)
                    for active in self._host.routes.values()
                ]
            }
        )


def _server(_: Request) -> Reply:
    return json_reply({"name": "edgefleet", "version": __version__, "extensions": EXTENSIONS})


def _ready(active: Release) -> object:
    return {"name": active.model, "ready": True}
