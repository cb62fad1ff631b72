"""Counters, latency, confidence and their Prometheus metrics."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tritonclient import http as triton

from edgefleet.base.network import HttpLink
from edgefleet.protocol.device import Sketches
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.limits import SKETCH_BUCKETS
from edgefleet.serving.metrics import metrics_text
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.stats import (
    LatencyHistogram,
    Stats,
    bucket,
    confidence_sum,
    input_bin,
    sparse,
    upper_edge_us,
)
from support.serving_process import serving
from support.tiny_models import classifier, pixels


@given(st.integers(0, (1 << 29) - 1))
def test_a_duration_lies_inside_its_bucket_which_is_at_most_an_eighth_wide(us: int) -> None:
    index = bucket(us)
    lower = upper_edge_us(index - 1) if index else 0
    assert lower <= us < upper_edge_us(index)
    assert upper_edge_us(index) - lower <= max(1, lower / 8)


def test_a_duration_beyond_all_buckets_is_counted_in_the_last() -> None:
    histogram = LatencyHistogram()
    histogram.record(1 << 40)
    assert histogram.counts[-1] == 1


@given(st.lists(st.integers(0, 1 << 25), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_at_most_an_eighth_above_the_true_one(
    durations_us: Sequence[int], share: float
) -> None:
    histogram = LatencyHistogram()
    for us in durations_us:
        histogram.record(us)
    true_us = sorted(durations_us)[max(0, int(np.ceil(share * len(durations_us))) - 1)]
    assert true_us <= histogram.quantile_us(share) <= true_us * 9 / 8 + 1


def test_no_duration_has_the_quantile_0() -> None:
    assert LatencyHistogram().quantile_us(0.5) == 0


def test_confidence_is_the_top_probability_and_softmax_makes_it_of_logits() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [1000.0, 0.0, 0.0]], np.float32)
    exponents = np.exp(logits[:1].astype(float))
    probabilities = exponents / exponents.sum()
    assert confidence_sum(logits, "logits") == pytest.approx(probabilities.max() + 1.0)
    assert confidence_sum(probabilities.astype(np.float32), "probabilities") == pytest.approx(
        probabilities.max()
    )


@pytest.mark.parametrize("scores", ["probabilities", "logits"])
def test_scores_that_are_no_numbers_give_no_confidence(scores: str) -> None:
    broken = np.full((2, 3), np.nan, np.float32)
    assert confidence_sum(broken, scores) is None  # type: ignore[arg-type] # both are kinds of scores


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The samples as Prometheus's parser reads them: name -> labels -> value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "the sample occurs twice"
            found[sample.name][labels] = sample.value
    return found


def one(of: dict[tuple[tuple[str, str], ...], float]) -> float:
    (value,) = of.values()
    return value


def test_metrics_are_what_prometheus_reads_and_the_counters_are_true(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    with serving(tmp_path) as process:
        empty = samples(HttpLink(process.url).request("GET", "/metrics").body.decode())
        assert one(empty["edgefleet_serving_ready"]) == 0
        process.activate(model.activate('odd "name"\\'))
        inputs = pixels(4)
        with triton.InferenceServerClient(process.address) as client:
            for _ in range(5):
                tensor = triton.InferInput("pixels", [4, 64], "FP32").set_data_from_numpy(inputs)
                client.infer("digits", [tensor])
        HttpLink(process.url).request("POST", "/v2/models/digits/infer", body=b"{")
        answer = HttpLink(process.url).request("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        read = samples(answer.body.decode())
        stats = process.model().stats
    labels = (("model", "digits"), ("release", 'odd "name"\\'))
    assert read["edgefleet_inference_requests_total"] == {labels: 5}
    assert read["edgefleet_inference_errors_total"] == {labels: 0}
    assert read["edgefleet_inference_refused_total"] == {(("kind", "malformed"), *labels): 1}
    assert one(read["edgefleet_inference_duration_seconds_count"]) == 5
    assert one(read["edgefleet_inference_confidence_count"]) == 20
    expected = 5 * float(model.probabilities(inputs).max(axis=1).sum())
    assert one(read["edgefleet_inference_confidence_sum"]) == pytest.approx(expected, rel=1e-4)
    assert stats.confidence_sum == pytest.approx(expected, rel=1e-4)
    assert (stats.requests, stats.refused, stats.confidence_count) == (5, 1, 20)
    assert one(read["edgefleet_serving_memory_bytes"]) > 10 << 20
    assert one(read["edgefleet_serving_ready"]) == 1
    buckets = list(read["edgefleet_inference_duration_seconds_bucket"].values())
    assert buckets == sorted(buckets)
    assert buckets[-1] == 5


def test_the_parser_used_here_refuses_text_that_is_no_metrics() -> None:
    async def make() -> str:
        return metrics_text(ModelHost())

    text = asyncio.run(make())
    assert samples(text)
    with pytest.raises(ValueError, match=r"\w"):
        samples(text.replace("edgefleet_serving_ready 0", "edgefleet_serving_ready zero"))


def test_requests_are_told_as_sketches_too() -> None:
    stats = Stats()
    scores = np.array([[0.1, 0.9], [0.7, 0.3]], np.float32)
    stats.succeeded(300, np.full((2, 4), 8.0, np.float32))
    stats.scored(scores, "probabilities")
    stats.succeeded(300, np.array([["text"]], object))
    stats.scored(scores[:1], "probabilities")
    told = stats.live().sketches
    assert told.latency == {bucket(300): 2}
    assert told.classes[:2] == (1, 2)
    assert told.confidence[12:15] == (2, 0, 1)  # a batch counts by its mean, 0.8
    assert (sum(told.inputs), told.inputs[input_bin(8.0)]) == (1, 1)
    assert decode(encode(told), Sketches) == told


@given(st.floats(1e-6, 1e6), st.floats(1.2, 8))
def test_inputs_of_another_size_or_sign_are_in_another_bin(mean: float, factor: float) -> None:
    assert input_bin(mean) != input_bin(mean * factor)
    assert input_bin(mean) != input_bin(-mean)


@pytest.mark.parametrize("mean", [0.0, float("nan"), float("inf")])
def test_what_is_no_number_has_a_bin_too(mean: float) -> None:
    assert input_bin(mean) == 0


def test_a_sketch_has_no_more_buckets_than_may_be_sent() -> None:
    told = sparse([1] * 200)
    assert (len(told), sum(told.values()), min(told)) == (SKETCH_BUCKETS, 200, 136)


@pytest.mark.parametrize("shape", [(1, 3, 40, 40), (2, 5000), (1, 9001)])
def test_the_mean_of_a_large_input_is_that_of_a_sample_of_it(shape: tuple[int, ...]) -> None:
    even, half = Stats(), Stats()
    even.succeeded(10, np.full(shape, 8.0, np.float32))
    assert even.inputs[input_bin(8.0)] == 1
    values = np.zeros(shape, np.float32).ravel()
    values[values.size // 2 :] = 10.0  # a sample of the first values alone would not see them
    half.succeeded(10, values.reshape(shape))
    assert half.inputs[input_bin(5.0)] == 1
