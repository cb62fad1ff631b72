"""Metrics in Prometheus text format 0.0.4. A client library would need 7 MiB."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from edgefleet.base.cgroup import memory_room
from edgefleet.protocol.labels import ModelLabels
from edgefleet.serving import metric_aliases
from edgefleet.serving.active_release import Release
from edgefleet.serving.metric_aliases import Sample
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.stats import Stats, memory_kib

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
EDGES_US: Final = tuple(1 << power for power in range(5, 24))  # 32 us to 8.4 s, by octaves

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


Samples = dict[tuple[str, str, str], list[str]]
"""The lines of each metric, by its name, type and text: Prometheus reads a metric in one block."""


def metrics_text(host: ModelHost, more: Iterable[Sample] = ()) -> str:
    """All metrics of the process, and ``more``. Each release has its own counters and labels."""
    samples: Samples = {}
    _add(samples, "serving_ready", "gauge", "1 when inference requests are answered.",
         ("", "", int(bool(host.routes))))  # fmt: skip
    _add(samples, "serving_memory_bytes", "gauge", "Resident memory of the serving process.",
         ("", "", memory_kib() << 10))  # fmt: skip
    if (room := memory_room()) is not None:
        _add(samples, "memory_limit_bytes", "gauge", "The memory limit that is reached first.",
             ("", _labels({"of": room.place}), room.limit_bytes))  # fmt: skip
        _add(samples, "memory_used_bytes", "gauge", "The memory in use under this limit.",
             ("", _labels({"of": room.place}), room.used_bytes))  # fmt: skip
    _add(samples, "serving_activations_total", "counter", "Releases swapped in since the start.",
         ("", "", host.activations))  # fmt: skip
    refused = sum(host.refused, Counter())
    text = "Connections without a general place, and requests over a quota."
    _add(samples, "serving_refused_total", "counter", text,
         *(("", _labels({"reason": one}), n) for one, n in sorted(refused.items())))  # fmt: skip
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
        _add_named(samples, metric_aliases.of_release(active.model, active.release, active.stats))
    report = host.answers.report()
    for one in () if report is None else report.models:
        _labels_of(samples, one)
        _add_named(samples, metric_aliases.of_labels(one))
    text = "Resident memory of the processes that serve."
    used_kib = memory_kib() + sum(memory_kib(one.worker) for one in _workers(host))
    used = Sample("edge_ai_memory_usage_bytes", "gauge", text, "", {}, used_kib << 10)
    _add_named(samples, [used])
    _add_named(samples, more)
    lines: list[str] = []
    for (name, kind, text), found in samples.items():
        lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}", *found)
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
    text = "Time from request to answer."
    edges = [(repr(edge_us / 1e6), count) for edge_us, count in zip(EDGES_US, counts, strict=True)]
    for name in ("edgefleet_inference_duration_seconds", "edge_ai_inference_duration_seconds"):
        histogram = [
            *(
                ("_bucket", {**labels, "le": edge}, count)
                for edge, count in (*edges, ("+Inf", total))
            ),
            ("_sum", dict(labels), stats.latency.sum_us / 1e6),
            ("_count", dict(labels), total),
        ]
        _add_named(samples, (Sample(name, "histogram", text, *one) for one in histogram))


def _add(
    samples: Samples, name: str, kind: str, text: str, *values: tuple[str, str, float]
) -> None:
    """Add samples (suffix of the name, labels, value) of an own metric."""
    full = f"edgefleet_{name}"
    samples.setdefault((full, kind, text), []).extend(
        f"{full}{suffix}{labels} {value!r}" for suffix, labels, value in values
    )


def _add_named(samples: Samples, found: Iterable[Sample]) -> None:
    """Add samples of metrics with other names than ours."""
    for one in found:
        labels = _labels(one.labels) if one.labels else ""
        line = f"{one.name}{one.suffix}{labels} {one.value!r}"
        samples.setdefault((one.name, one.kind, one.text), []).append(line)


def _workers(host: ModelHost) -> list[Release]:
    """The releases that run in processes of their own."""
    return [one for one in host.routes.values() if one.worker is not None]


def _labels(labels: Mapping[str, str]) -> str:
    return (
        "{"
        + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
        + "}"
    )
