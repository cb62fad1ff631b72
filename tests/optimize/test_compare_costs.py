"""Latency and memory of two models beside each other."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.optimize.comparison.answers import Side
from edgefleet.optimize.comparison.compare import file_variant
from edgefleet.optimize.comparison.costs import compare_costs, times_faster, why_not_measured
from edgefleet.serving.model_file import inspect_model
from support.tiny_models import classifier


def side(path: Path) -> Side:
    return Side(path, file_variant(path, inspect_model(path)))


def test_the_interval_has_the_true_ratio_and_knows_slow_times_of_the_machine() -> None:
    """Other work makes rounds slow for a while: both models alike, so the ratio stays."""
    random = np.random.default_rng(3)
    slow = np.repeat(random.uniform(1, 3, 60), 20)
    before = slow * random.normal(2_000_000, 40_000, 1_200)
    after = slow * random.normal(1_000_000, 40_000, 1_200)
    found = times_faster(before, after, 0.5)
    assert found.low < 2.0 < found.high
    assert found.times == pytest.approx(2.0, abs=0.1)
    same = times_faster(before, slow * random.normal(2_000_000, 40_000, 1_200), 0.1)
    assert same.low < 1.0 < same.high
    single = times_faster(np.full(5, 30.0), np.full(5, 10.0), 0.5)
    assert (single.times, single.low, single.high) == (3.0, 3.0, 3.0)


def test_models_with_other_inputs_or_another_batch_are_not_measured(tmp_path: Path) -> None:
    one = side(classifier(tmp_path / "a.onnx", seed=1).path)
    other = side(classifier(tmp_path / "b.onnx", seed=2, input_name="image").path)
    assert why_not_measured(one, one) == ""
    assert why_not_measured(one, other) == "The models have different inputs."
    batch = Side(one.path, replace(one.variant, max_batch=4))
    assert why_not_measured(one, batch) == "The first model runs 1 case at once, the second 4."


@pytest.mark.long
def test_the_larger_model_is_slower_and_needs_more_memory(tmp_path: Path) -> None:
    small = side(classifier(tmp_path / "a.onnx", seed=1).path)
    large = side(classifier(tmp_path / "b.onnx", seed=1, hidden=60).path)
    (spec,) = small.variant.inputs
    inputs = {spec.name: np.zeros((8, *spec.shape[1:]), np.float32)}
    found = compare_costs(large, small, inputs, seconds=1.0)
    assert found.by_p50.low > 1.5
    assert found.memory_before_bytes > found.memory_after_bytes + (10 << 20)
    assert found.before.runs == found.after.runs >= 60
    assert found.before.spread_s[2] == pytest.approx(found.before.p50_s)
