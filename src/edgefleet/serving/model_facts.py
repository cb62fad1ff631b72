"""Facts about a model beside its answers: the same over REST and gRPC.

The values are JSON objects of Triton's extensions: statistics, model configuration, and the index
of the model repository (github.com/triton-inference-server/server, docs/protocol).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from edgefleet.protocol.release import TensorSpec
from edgefleet.protocol.wire import encode
from edgefleet.serving.active_release import Release
from edgefleet.serving.model_host import ModelHost

_PLATFORMS: Final = {"onnx": "onnxruntime_onnx"}
_BACKENDS: Final = {"onnx": "onnxruntime"}


def platform(active: Release) -> str:
    """The platform by the protocol's name, or the name of the runtime."""
    runtime: str = active.wanted.variant.runtime
    return _PLATFORMS.get(runtime, runtime)


def metadata(active: Release) -> dict[str, Any]:
    """The metadata of a model (protocol v2)."""
    return {
        "name": active.model,
        "versions": [active.release],
        "platform": platform(active),
        "inputs": [_described(active, spec) for spec in active.inputs],
        "outputs": [_described(active, spec) for spec in active.outputs],
    }


def index(host: ModelHost, *, ready: bool) -> list[dict[str, str]]:
    """Every model that the device has, with its state. ``ready``: those that answer alone."""
    found = [
        {"name": one.model, "version": one.release, "state": "READY", "reason": ""}
        for one in host.routes.values()
    ]
    if not ready:
        found += [
            {
                "name": model,
                "version": "",
                "state": "UNAVAILABLE",
                "reason": "Its release has ended; see the agent's log.",
            }
            for model in host.unserved()
        ]
    return found


def statistics(host: ModelHost, active: Release) -> dict[str, Any]:
    """The statistics of one model. Requests that the codec refuses reach no statistics."""
    times = active.stats.durations
    return {
        "name": active.model,
        "version": active.release,
        "last_inference": times.last_ms,
        "inference_count": times.items,
        "execution_count": times.runs,
        "inference_stats": {
            "success": _sum(times.answered, times.input_ns + times.waited_ns + times.output_ns),
            "fail": _sum(times.failed, times.failed_ns),
            "queue": _sum(times.answered, times.queue_ns),
            "compute_input": _sum(times.answered, times.input_ns),
            "compute_infer": _sum(times.runs, times.run_ns),
            "compute_output": _sum(times.answered, times.output_ns),
            "cache_hit": _sum(0, 0),
            "cache_miss": _sum(0, 0),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _sum(runs, input_ns),
                "compute_infer": _sum(runs, run_ns),
                "compute_output": _sum(runs, output_ns),
            }
            for size, (runs, input_ns, run_ns, output_ns) in sorted(times.batches.items())
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": host.memory_kib(active) << 10}],
    }


def configuration(active: Release) -> dict[str, Any]:
    """The model as Triton's ``ModelConfig``. Sizes without the batch, if the model has one."""
    variant = active.wanted.variant
    batched = is_batched(active)
    return {
        "name": active.model,
        "platform": platform(active),
        "backend": _BACKENDS.get(variant.runtime, str(variant.runtime)),
        "version_policy": {"specific": {"versions": [active.release]}},
        "max_batch_size": variant.max_batch if batched else 0,
        "input": _tensors(variant.inputs, batched=batched),
        "output": _tensors(variant.outputs, batched=batched),
        "instance_group": [{"name": active.model, "kind": "KIND_CPU", "count": 1}],
        "default_model_filename": "",
        "parameters": {
            name: {"string_value": value}
            for name, value in (
                ("profile", variant.profile),
                ("precision", variant.precision),
                ("artifact_sha256", variant.artifact.sha256),
                *(
                    (f"quantisation.{name}", encode(found).decode())
                    for name, found in active.quantised.items()
                ),
            )
        },
    }


def _described(active: Release, spec: TensorSpec) -> dict[str, Any]:
    """A tensor of the metadata.

    Its parameters are the scale and zero point of a quantised one, and the names of its classes.
    """
    described: dict[str, Any] = msgspec.to_builtins(spec)
    parameters: dict[str, Any] = {}
    if (found := active.quantised.get(spec.name)) is not None:
        parameters["quantisation"] = found
    if spec in active.outputs and (names := active.classes.get(spec.name)):
        parameters["classes"] = names
    return described | ({"parameters": parameters} if parameters else {})


def is_batched(active: Release) -> bool:
    """Whether the first size of every tensor is the batch."""
    return bool(active.inputs) and all(
        spec.shape[:1] == (-1,) for spec in (*active.inputs, *active.outputs)
    )


def _tensors(specs: Sequence[TensorSpec], *, batched: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "data_type": "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}",
            "dims": spec.shape[1:] if batched else spec.shape,
        }
        for spec in specs
    ]


def _sum(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
