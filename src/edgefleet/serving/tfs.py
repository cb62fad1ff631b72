"""TensorFlow Serving's REST API: predict, classify, regress, metadata and status.

Source: tensorflow.org/tfx/serving/api_rest and the server's own code (util/json_tensor.cc). A
version is a release. Each model has one signature, ``serving_default``.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.active_release import Release
from edgefleet.serving.inference import Inferences
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest_inferences import RestInferences
from edgefleet.serving.routes import Endpoints, endpoint_of, json_reply
from edgefleet.serving.tfs_codec import ExamplesCodec, PredictCodec
from edgefleet.serving.tfs_values import SIGNATURE

_TYPES: Final[Mapping[Datatype, str]] = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}


class TensorFlowServing:
    """The handler of the paths below ``/v1/models``."""

    def __init__(self, host: ModelHost, inferences: RestInferences | None = None) -> None:
        self._inferences: RestInferences = inferences or Inferences(host)
        self._predict = PredictCodec(host.bodies)
        self._classify = ExamplesCodec(host.bodies, "classify")
        self._regress = ExamplesCodec(host.bodies, "regress")

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        endpoints = self.endpoints(request.path.split("/")[3:])
        return endpoint_of(request.method, request.path, endpoints)(request)

    def endpoints(self, rest: list[str]) -> Endpoints:
        """The endpoints of the path behind ``/v1/models``, given by its parts."""
        *parts, last = rest
        last, _, verb = last.partition(":")
        match [*parts, last], verb:
            case [model], "":
                return self._about(_status, model, None)
            case [model, "metadata"], "":
                return self._about(_metadata, model, None)
            case [model, "versions", version], "":
                return self._about(_status, model, version)
            case [model, "versions", version, "metadata"], "":
                return self._about(_metadata, model, version)
            case [model], "predict" | "classify" | "regress":
                return {"POST": partial(self._infer, verb=verb, model=model, version=None)}
            case [model, "versions", version], "predict" | "classify" | "regress":
                return {"POST": partial(self._infer, verb=verb, model=model, version=version)}
            case [_, "labels", _], "predict" | "classify" | "regress":
                return {"POST": _refuse_label}
            case (([_, "labels", _] | [_, "labels", _, "metadata"]), ""):
                return {"GET": _refuse_label}
            case _:
                return {}

    def _about(
        self, show: Callable[[Release], object], model: str, version: str | None
    ) -> Endpoints:
        return {"GET": lambda _: json_reply(show(self._inferences.find(model, version)))}

    def _infer(
        self, request: Request, *, verb: str, model: str, version: str | None
    ) -> Reply | Awaitable[Reply]:
        if verb == "predict":
            return self._inferences.infer(self._predict, request, model, version)
        codec = self._classify if verb == "classify" else self._regress
        return self._inferences.infer(codec, request, model, version)


def _refuse_label(_: Request) -> Reply:
    """Raises OperatorError ``bad_request``."""
    raise OperatorError(
        "bad_request",
        "Labels of versions are not supported: a device serves one release of a model.",
        hint="Leave the label out, or name the release: /versions/RELEASE.",
    )


def _status(active: Release) -> object:
    return {
        "model_version_status": [
            {
                "version": active.release,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


def _metadata(active: Release) -> object:
    signature = {
        "inputs": {spec.name: _tensor_info(spec) for spec in active.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in active.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": active.model, "signature_name": "", "version": active.release},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "name": spec.name,
        "dtype": _TYPES[spec.datatype],
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
    }
