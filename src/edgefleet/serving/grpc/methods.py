"""The methods of inference.GRPCInferenceService beside ModelInfer, and of grpc.health.v1.Health.

A method takes the bytes of a message and returns those of its answer. A feature that is not offered
is refused with a sentence, never ignored: the agent decides which releases are loaded.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError
from edgefleet.serving import model_facts
from edgefleet.serving.active_release import Release
from edgefleet.serving.grpc import schemas
from edgefleet.serving.grpc.call_inferences import CallInferences
from edgefleet.serving.grpc.protobuf import decode, encode
from edgefleet.serving.grpc.status import CallFailed, Code
from edgefleet.serving.oip import EXTENSIONS
from edgefleet.serving.oip_services import LOGGING, TRACE

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
SERVING: Final = 1
NOT_SERVING: Final = 2

_TRACE: Final = {
    name: {"value": [value] if isinstance(value, str) else value} for name, value in TRACE.items()
}
_LOG_FIELDS: Final = {bool: "bool_param", int: "uint32_param", str: "string_param"}
_LOG: Final = {name: {_LOG_FIELDS[type(value)]: value} for name, value in LOGGING.items()}
_NO_MEMORY: Final = "Tensors in shared memory are not supported: send them in the message."
_NO_LOADING: Final = (
    "This server neither loads nor unloads a model on request: models come by rollout "
    "(`edgefleet rollout plan` at the hub)."
)


class Methods:
    """The small methods, by their paths in ``unary``."""

    def __init__(self, inferences: CallInferences) -> None:
        self._inferences = inferences
        self._host = inferences.host
        self.unary: dict[bytes, Callable[[memoryview], bytes]] = {}
        for name, method in (
            ("ServerLive", self._live),
            ("ServerReady", self._server_ready),
            ("ModelReady", self._model_ready),
            ("ServerMetadata", self._server_metadata),
            ("ModelMetadata", self._model_metadata),
            ("ModelConfig", self._model_config),
            ("ModelStatistics", self._statistics),
            ("RepositoryIndex", self._index),
            ("RepositoryModelLoad", _refusal(_NO_LOADING)),
            ("RepositoryModelUnload", _refusal(_NO_LOADING)),
            ("TraceSetting", self._trace),
            ("LogSettings", self._log),
            ("SystemSharedMemoryStatus", _nothing),
            ("SystemSharedMemoryRegister", _refusal(_NO_MEMORY)),
            ("SystemSharedMemoryUnregister", _nothing),
            ("CudaSharedMemoryStatus", _nothing),
            ("CudaSharedMemoryRegister", _refusal(_NO_MEMORY)),
            ("CudaSharedMemoryUnregister", _nothing),
        ):
            self.unary[f"/{SERVICE}/{name}".encode()] = method
        self.unary[f"/{HEALTH_SERVICE}/Check".encode()] = self._check

    def health(self, service: str) -> int | None:
        """The status of a service or of a model by its name. None for an unknown one."""
        if service in ("", SERVICE, HEALTH_SERVICE):
            return SERVING if self._is_ready() else NOT_SERVING
        if service in self._host.routes:
            return SERVING
        return NOT_SERVING if service in self._host.unserved() else None

    def _is_ready(self) -> bool:
        try:
            self._host.check_ready()
        except EdgefleetError:
            return False
        return True

    def _check(self, message: memoryview) -> bytes:
        service = decode(message, schemas.HEALTH_REQUEST).get("service", "")
        status = self.health(service)
        if status is None:
            raise CallFailed(Code.NOT_FOUND, f"There is no service or model {service!r}.")
        return encode({"status": status}, schemas.HEALTH)

    def _live(self, message: memoryview) -> bytes:
        decode(message, schemas.EMPTY)
        return encode({"live": True}, schemas.LIVE)

    def _server_ready(self, message: memoryview) -> bytes:
        decode(message, schemas.EMPTY)
        return encode({"ready": self._is_ready()}, schemas.READY)

    def _model_ready(self, message: memoryview) -> bytes:
        asked = decode(message, schemas.NAMED)
        try:
            self._find(asked)
        except EdgefleetError:
            return encode({"ready": False}, schemas.READY)
        return encode({"ready": True}, schemas.READY)

    def _server_metadata(self, message: memoryview) -> bytes:
        decode(message, schemas.EMPTY)
        return encode(
            {"name": "edgefleet", "version": __version__, "extensions": EXTENSIONS},
            schemas.SERVER_METADATA,
        )

    def _model_metadata(self, message: memoryview) -> bytes:
        active = self._find(decode(message, schemas.NAMED))
        return encode(msgspec.to_builtins(model_facts.metadata(active)), schemas.MODEL_METADATA)

    def _model_config(self, message: memoryview) -> bytes:
        active = self._find(decode(message, schemas.NAMED))
        config = model_facts.configuration(active)
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = schemas.CONFIG_TYPES[tensor["data_type"]]
        for group in config["instance_group"]:
            group["kind"] = schemas.CONFIG_KINDS[group["kind"]]
        return encode({"config": config}, schemas.MODEL_CONFIG)

    def _statistics(self, message: memoryview) -> bytes:
        asked = decode(message, schemas.NAMED)
        found = [self._find(asked)] if asked.get("name") else self._host.routes.values()
        stats = [model_facts.statistics(self._host, active) for active in found]
        return encode({"model_stats": stats}, schemas.MODEL_STATISTICS)

    def _index(self, message: memoryview) -> bytes:
        ready = decode(message, schemas.INDEX_REQUEST).get("ready", False)
        return encode({"models": model_facts.index(self._host, ready=ready)}, schemas.INDEX)

    def _trace(self, message: memoryview) -> bytes:
        asked = decode(message, schemas.TRACE)
        if asked.get("model_name"):
            self._find({"name": asked["model_name"]})
        for name, setting in asked.get("settings", {}).items():
            values = setting.get("value", [])
            if values and values != _TRACE.get(name, {}).get("value"):
                raise _unsupported(f"{name}: traces are not supported; the trace level stays OFF.")
        return encode({"settings": _TRACE}, schemas.TRACE)

    def _log(self, message: memoryview) -> bytes:
        for name, value in decode(message, schemas.LOG).get("settings", {}).items():
            if value != _LOG.get(name):
                raise _unsupported(f"{name}: the log settings of this server cannot be changed.")
        return encode({"settings": _LOG}, schemas.LOG)

    def _find(self, asked: Mapping[str, Any]) -> Release:
        return self._inferences.find(asked.get("name", ""), asked.get("version") or None)


def _nothing(message: memoryview) -> bytes:
    """No region of shared memory is registered: the answer is empty."""
    decode(message, schemas.EMPTY)
    return b""


def _refusal(text: str) -> Callable[[memoryview], bytes]:
    def refuse(message: memoryview) -> bytes:
        decode(message, schemas.EMPTY)
        raise _unsupported(text)

    return refuse


def _unsupported(text: str) -> CallFailed:
    return CallFailed(Code.UNIMPLEMENTED, text)
