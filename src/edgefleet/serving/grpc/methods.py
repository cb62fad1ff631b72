"""The methods of inference.GRPCInferenceService beside ModelInfer, and of grpc.health.v1.Health.

A method takes the bytes of a message and returns those of its answer. What this server does not do
is refused with a sentence, never ignored: the agent decides which releases are loaded.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.active_release import Release
from edgefleet.serving.grpc import schemas
from edgefleet.serving.grpc.protobuf import decode, encode
from edgefleet.serving.grpc.status import CallFailed, Code
from edgefleet.serving.inference import Inferences

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
EXTENSIONS: Final = ("model_configuration", "model_repository", "statistics", "trace", "logging")
PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
SERVING: Final = 1
NOT_SERVING: Final = 2

_TRACE_OFF: Final[Mapping[str, list[str]]] = {
    "trace_level": ["OFF"],
    "trace_rate": ["0"],
    "trace_count": ["0"],
    "log_frequency": ["0"],
}
_LOG_SETTINGS: Final[Mapping[str, dict[str, Any]]] = {
    "log_info": {"bool_param": True},
    "log_warning": {"bool_param": True},
    "log_error": {"bool_param": True},
    "log_verbose_level": {"uint32_param": 0},
}
_NO_MEMORY: Final = "Shared memory is not offered: send the tensors themselves."
_NO_LOADING: Final = (
    "Releases are loaded by the agent of this device, not by clients: use `edgefleet rollout`."
)


class Methods:
    """The small methods, by their paths in ``unary``."""

    def __init__(self, inferences: Inferences) -> None:
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
        return NOT_SERVING if service in self._host.models() else None

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
        return encode(
            {
                "name": active.model,
                "versions": [active.release],
                "platform": PLATFORM,
                "inputs": [_tensor(spec) for spec in active.inputs],
                "outputs": [_tensor(spec) for spec in active.outputs],
            },
            schemas.MODEL_METADATA,
        )

    def _model_config(self, message: memoryview) -> bytes:
        active = self._find(decode(message, schemas.NAMED))
        specs = (*active.inputs, *active.outputs)
        batched = bool(specs) and all(spec.shape[:1] == (-1,) for spec in specs)
        config = {
            "name": active.model,
            "platform": PLATFORM,
            "backend": BACKEND,
            "max_batch_size": active.wanted.variant.max_batch if batched else 0,
            "input": [_config(spec, batched=batched) for spec in active.inputs],
            "output": [_config(spec, batched=batched) for spec in active.outputs],
        }
        return encode({"config": config}, schemas.MODEL_CONFIG)

    def _statistics(self, message: memoryview) -> bytes:
        asked = decode(message, schemas.NAMED)
        found = [self._find(asked)] if asked.get("name") else list(self._host.routes.values())
        return encode({"model_stats": [_stats(one) for one in found]}, schemas.MODEL_STATISTICS)

    def _index(self, message: memoryview) -> bytes:
        only_ready = decode(message, schemas.INDEX_REQUEST).get("ready", False)
        models: list[dict[str, str]] = []
        for name in self._host.models():
            active = self._host.routes.get(name)
            if active is not None:
                models.append({"name": name, "version": active.release, "state": "READY"})
            elif not only_ready:
                reason = self._host.not_served(name).message
                models.append({"name": name, "state": "UNAVAILABLE", "reason": reason})
        return encode({"models": models}, schemas.INDEX)

    def _trace(self, message: memoryview) -> bytes:
        asked = decode(message, schemas.TRACE)
        if asked.get("model_name"):
            self._find({"name": asked["model_name"]})
        for name, setting in asked.get("settings", {}).items():
            values = setting.get("value", [])
            if values and list(values) != _TRACE_OFF.get(name):
                raise _unsupported(f"{name}: tracing is not offered; trace_level is OFF.")
        settings = {name: {"value": value} for name, value in _TRACE_OFF.items()}
        return encode({"settings": settings}, schemas.TRACE)

    def _log(self, message: memoryview) -> bytes:
        for name, value in decode(message, schemas.LOG).get("settings", {}).items():
            if value != _LOG_SETTINGS.get(name):
                raise _unsupported(f"{name}: the log of this process has no settings.")
        return encode({"settings": _LOG_SETTINGS}, schemas.LOG)

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


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _config(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": schemas.CONFIG_TYPES[spec.datatype],
        "dims": spec.shape[1:] if batched else spec.shape,
    }


def _stats(active: Release) -> dict[str, Any]:
    """The statistics of a release. Each request is one execution: requests are not combined."""
    stats = active.stats
    answered = stats.requests - stats.errors
    success = {"count": answered, "ns": stats.latency.sum_us * 1_000}
    last_ms = 0
    if stats.answered_at is not None:
        last_ms = int((time.time() - (time.monotonic() - stats.answered_at)) * 1_000)
    return {
        "name": active.model,
        "version": active.release,
        "last_inference": last_ms,
        "inference_count": answered,
        "execution_count": answered,
        "inference_stats": {
            "success": success,
            "fail": {"count": stats.errors},
            "compute_infer": {"count": answered, "ns": stats.cpu_ns},
        },
        "memory_usage": [{"type": "CPU", "byte_size": active.memory_kib() << 10}],
    }
