"""Metrics in Prometheus text format 0.0.4. A client library would need 7 MiB."""

from collections.abc import Mapping
from typing import Final

from edgefleet.protocol.labels import ModelLabels
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.stats import Stats, memory_kib

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
EDGES_US: Final = tuple(1 << power for power in range(5, 24))  # 32 us to 8.4 s, by octaves

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


Samples = dict[tuple[str, str, str], list[str]]
"""The lines of each metric, by its name, type and text: Prometheus reads a metric in one block."""


def metrics_text(host: ModelHost) -> str:
    """All metrics of the process. Each release has its own counters and labels."""
    samples: Samples = {}
    _add(samples, "serving_ready", "gauge", "1 when inference requests are answered.",
         ("", "", int(bool(host.routes))))  # fmt: skip
    _add(samples, "serving_memory_bytes", "gauge", "Resident memory of the serving process.",
         ("", "", memory_kib() << 10))  # fmt: skip
    _add(samples, "serving_activations_total", "counter", "Releases swapped in since the start.",
         ("", "", host.activations))  # fmt: skip
    for active in host.routes.values():
        labels = {"model": active.model, "release": active.release}
        variant = active.wanted.variant
        facts = {
            **labels,
            "profile": variant.profile,
            "precision": variant.precision,
            "artifact": variant.artifact.sha256,
        }
        _add(samples, "serving_release_info", "gauge", "The active release.",
             ("", _labels(facts), 1))  # fmt: skip
        _add(samples, "serving_release_memory_bytes", "gauge", "Memory of the release alone.",
             ("", _labels(labels), host.memory_kib(active) << 10))  # fmt: skip
        _release(samples, active.stats, labels)
    report = host.answers.report()
    for one in () if report is None else report.models:
        _labels_of(samples, one)
    lines: list[str] = []
    for (name, kind, text), found in samples.items():
        lines += (f"# HELP edgefleet_{name} {text}", f"# TYPE edgefleet_{name} {kind}", *found)
    return "\n".join(lines) + "\n"


def _labels_of(samples: Samples, found: ModelLabels) -> None:
    """The counts of the labels of one model, by the release that gave the answers."""
    own = {"model": found.model}
    for one in found.releases:
        of_release = _labels({**own, "release": one.release})
        _add(samples, "inference_labelled_total", "counter", "Answers with a label.",
             ("", of_release, one.labelled))  # fmt: skip
        _add(samples, "inference_correct_total", "counter", "Labelled answers that are correct.",
             ("", of_release, one.correct))  # fmt: skip
    _add(samples, "inference_labels_unmatched_total", "counter", "Labels without an answer.",
         ("", _labels(own), found.unmatched))  # fmt: skip


def _release(samples: Samples, stats: Stats, labels: Mapping[str, str]) -> None:
    own = _labels(labels)
    _add(samples, "inference_requests_total", "counter", "Requests that the model ran on.",
         ("", own, stats.requests))  # fmt: skip
    _add(samples, "inference_errors_total", "counter", "Requests that failed in the model.",
         ("", own, stats.errors))  # fmt: skip
    refused = sorted(stats.refused.items())
    _add(samples, "inference_refused_total", "counter", "Refused before the model ran.",
         *(("", _labels({**labels, "kind": kind}), count) for kind, count in refused))  # fmt: skip
    _add(samples, "inference_cpu_seconds_total", "counter", "CPU time of the model's inferences.",
         ("", own, stats.cpu_ns / 1e9))  # fmt: skip
    _add(samples, "inference_in_flight", "gauge", "Requests that run or wait.",
         ("", own, stats.in_flight))  # fmt: skip
    _add(samples, "inference_confidence", "summary", "The top score of each answered item.",
         ("_sum", own, stats.confidence_sum),
         ("_count", own, stats.confidence_count))  # fmt: skip
    counts = stats.latency.at_most(EDGES_US)
    total = sum(stats.latency.counts)
    _add(samples, "inference_duration_seconds", "histogram", "Time from request to answer.",
         *(("_bucket", _labels({**labels, "le": repr(edge_us / 1e6)}), count)
           for edge_us, count in zip(EDGES_US, counts, strict=True)),
         ("_bucket", _labels({**labels, "le": "+Inf"}), total),
         ("_sum", own, stats.latency.sum_us / 1e6),
         ("_count", own, total))  # fmt: skip


def _add(
    samples: Samples, name: str, kind: str, text: str, *values: tuple[str, str, float]
) -> None:
    """Add samples (suffix of the name, labels, value) of a metric."""
    samples.setdefault((name, kind, text), []).extend(
        f"edgefleet_{name}{suffix}{labels} {value!r}" for suffix, labels, value in values
    )


def _labels(labels: Mapping[str, str]) -> str:
    return (
        "{"
        + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
        + "}"
    )
