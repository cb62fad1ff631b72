"""Metrics in Prometheus text format 0.0.4. A client library would need 7 MiB."""

from collections.abc import Iterable, Mapping
from typing import Final

from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.stats import Stats, memory_kib

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
EDGES_US: Final = tuple(1 << power for power in range(5, 24))  # 32 us to 8.4 s, by octaves

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def metrics_text(host: ModelHost) -> str:
    """All metrics of the process. Each release has its own counters and labels."""
    active = host.active
    lines = [
        *_family("serving_ready", "gauge", "1 when inference requests are answered."),
        f"edgefleet_serving_ready {int(active is not None)}",
        *_family("serving_memory_bytes", "gauge", "Resident memory of the serving process."),
        f"edgefleet_serving_memory_bytes {memory_kib() << 10}",
        *_family("serving_activations_total", "counter", "Releases swapped in since the start."),
        f"edgefleet_serving_activations_total {host.activations}",
    ]
    if active is not None:
        labels = {"model": active.model, "release": active.release}
        variant = active.wanted.variant
        facts = {
            **labels,
            "profile": variant.profile,
            "precision": variant.precision,
            "artifact": variant.artifact.sha256,
        }
        lines += _family("serving_release_info", "gauge", "The active release.")
        lines.append(f"edgefleet_serving_release_info{_labels(facts)} 1")
        lines += _release(active.stats, labels)
    return "\n".join(lines) + "\n"


def _release(stats: Stats, labels: Mapping[str, str]) -> Iterable[str]:
    label_text = _labels(labels)
    yield from _family("inference_requests_total", "counter", "Requests that the model ran on.")
    yield f"edgefleet_inference_requests_total{label_text} {stats.requests}"
    yield from _family("inference_errors_total", "counter", "Requests that failed in the model.")
    yield f"edgefleet_inference_errors_total{label_text} {stats.errors}"
    yield from _family("inference_refused_total", "counter", "Refused before the model ran.")
    for code, count in sorted(stats.refused.items()):
        yield f"edgefleet_inference_refused_total{_labels({**labels, 'code': code})} {count}"
    yield from _family("inference_in_flight", "gauge", "Requests that run or wait.")
    yield f"edgefleet_inference_in_flight{label_text} {stats.in_flight}"
    yield from _family("inference_confidence", "summary", "The top score of each answered item.")
    yield f"edgefleet_inference_confidence_sum{label_text} {stats.confidence_sum!r}"
    yield f"edgefleet_inference_confidence_count{label_text} {stats.confidence_count}"
    yield from _family("inference_duration_seconds", "histogram", "Time from request to answer.")
    name = "edgefleet_inference_duration_seconds"
    for edge_us, count in zip(EDGES_US, stats.latency.at_most(EDGES_US), strict=True):
        yield f"{name}_bucket{_labels({**labels, 'le': repr(edge_us / 1e6)})} {count}"
    total = sum(stats.latency.counts)
    yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {total}"
    yield f"{name}_sum{label_text} {stats.latency.sum_us / 1e6!r}"
    yield f"{name}_count{label_text} {total}"


def _family(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP edgefleet_{name} {text}", f"# TYPE edgefleet_{name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    return (
        "{"
        + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
        + "}"
    )
