"""The metrics under names that people have dashboards for already.

``nv_inference_*`` are Triton's names (triton-inference-server/server, docs/user_guide/metrics.md);
its label ``version`` is the release. ``edge_ai_*`` are names for fleets that have several servers.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from edgefleet.protocol.device import Refusal
from edgefleet.protocol.labels import ModelLabels
from edgefleet.serving.stats import Stats


class Sample(NamedTuple):
    """A value of a metric: its name, type and text, the suffix of the name, and the labels."""

    name: str
    kind: str
    text: str
    suffix: str
    labels: dict[str, str]
    value: float


_DURATIONS_US: Final = (
    ("request", "requests, from their receipt to their answer"),
    ("queue", "requests in the queue"),
    ("compute_input", "reading inputs"),
    ("compute_infer", "running the model"),
    ("compute_output", "encoding outputs"),
)


def of_release(model: str, release: str, stats: Stats) -> Iterator[Sample]:
    """The aliases of one release's counters."""
    triton = {"model": model, "version": release}
    found = stats.durations
    refused = stats.refused.total()
    rejected = stats.refused[Refusal.QUEUE_FULL]
    counters: tuple[tuple[str, str, dict[str, str], float], ...] = (
        ("request_success", "Requests that were answered.", {}, found.answered),
        ("request_failure", "Requests without an answer.", {"reason": "BACKEND"}, stats.errors),
        ("request_failure", "Requests without an answer.", {"reason": "REJECTED"}, rejected),
        ("request_failure", "Requests without an answer.", {"reason": "OTHER"}, refused - rejected),
        ("count", "Items of the answered requests.", {}, found.items),
        ("exec_count", "Runs of the model.", {}, found.runs),
    )
    for name, text, more, value in counters:
        yield Sample(f"nv_inference_{name}", "counter", text, "", {**triton, **more}, value)
    sums_ns = (
        found.input_ns + found.waited_ns + found.output_ns,
        found.queue_ns,
        found.input_ns,
        found.run_ns,
        found.output_ns,
    )
    for (name, what), spent_ns in zip(_DURATIONS_US, sums_ns, strict=True):
        text = f"Microseconds, summed: {what}."
        full = f"nv_inference_{name}_duration_us"
        yield Sample(full, "counter", text, "", triton, spent_ns // 1_000)
    yield Sample(
        "nv_inference_pending_request_count", "gauge", "Requests that run or wait.", "", triton,
        stats.in_flight,
    )  # fmt: skip
    own = {"model": model, "release": release}
    text = "Requests that the model ran on."
    yield Sample("edge_ai_inferences_total", "counter", text, "", own, stats.requests)


def of_labels(found: ModelLabels) -> Iterator[Sample]:
    """The measured accuracy of each release that gave answers with labels."""
    for one in found.releases:
        if one.labelled:
            labels = {"model": found.model, "release": one.release}
            text = "Share of correct answers among those with a label."
            share = one.correct / one.labelled
            yield Sample("edge_ai_model_accuracy", "gauge", text, "", labels, share)
