"""Chosen golden sets notice planted kernel faults, and random ones of the same size notice fewer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgefleet.optimize.golden.activations import channel_peaks
from edgefleet.optimize.golden.choose import (
    FRAGILE,
    Observed,
    choose_golden,
    margins_of,
    sensitive_count,
)
from edgefleet.optimize.golden.faults import plant
from edgefleet.optimize.new_release import AGREEMENT
from edgefleet.optimize.samples import Array
from edgefleet.protocol.comparisons import MeanPrecision
from support.digit_models import cnn, digits, evaluation, perceptron

COUNT = 48
RANDOM_SETS = 20


def answers(model: bytes, images: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    scores: Array = session.run(None, {"x": images})[0]
    return scores


def classes(scores: Array) -> Array:
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))


@dataclass(frozen=True)
class Planted:
    """Which cases change their answer under each fault: [faults, cases]."""

    kinds: list[str]
    changed: Array
    chosen: Array
    cases: int

    @property
    def seen(self) -> Array:
        """The faults that change an answer at all."""
        return self.changed.any(axis=1)

    def caught(self, rows: Array) -> float:
        """The share of them that a golden set of these rows refuses."""
        agreement = 1 - self.changed[self.seen][:, rows].mean(axis=1)
        return float((agreement < AGREEMENT).mean())

    def by_chance(self, count: int = COUNT) -> list[float]:
        return [
            self.caught(np.random.default_rng(seed).permutation(self.cases)[:count])
            for seed in range(RANDOM_SETS)
        ]


def planted(model: bytes) -> Planted:
    images, _ = evaluation()
    scores = answers(model, images)
    found = [(fault.kind, classes(answers(fault.model, images))) for fault in plant(model)]
    observed = Observed(
        "classification",
        {"x": images},
        [{"scores": scores}],
        "scores",
        internal=channel_peaks(model, {"x": images}),
    )
    return Planted(
        [kind for kind, _ in found],
        np.array([got != classes(scores) for _, got in found]),
        choose_golden(observed, COUNT),
        len(images),
    )


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches = iter(np.split(digits()[0][:200], 4))

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override]
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}


def int8(model: bytes, folder: Path) -> bytes:
    source, made = folder / "float.onnx", folder / "int8.onnx"
    source.write_bytes(model)
    quantize_static(
        source, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return made.read_bytes()


def test_a_chosen_set_catches_the_faults_that_a_random_one_misses() -> None:
    found = planted(perceptron())
    assert found.seen.sum() >= 60
    assert len({kind for kind, seen in zip(found.kinds, found.seen, strict=True) if seen}) >= 30
    assert found.caught(found.chosen) >= 0.95
    assert np.mean(found.by_chance()) < 0.85


def report(name: str, found: Planted) -> str:
    chance = found.by_chance()
    return (
        f"{name}: {len(found.kinds)} faults of {len(set(found.kinds))} kinds, "
        f"{int(found.seen.sum())} change an answer; chosen {found.caught(found.chosen):.3f}, "
        f"random {np.mean(chance):.3f} ({min(chance):.3f} to {max(chance):.3f})"
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("make", [perceptron, cnn])
def test_faults_are_caught_in_models_of_several_trainings(
    make: Callable[[int], bytes], seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planted(make(seed))
    with capsys.disabled():
        print(f"\n{report(f'{make.__name__} {seed}', found)}")
    assert found.caught(found.chosen) >= 0.95
    assert np.mean(found.by_chance()) < 0.85


@pytest.mark.long
def test_faults_of_integer_kernels_are_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planted(int8(cnn(), tmp_path))
    with capsys.disabled():
        print(f"\n{report('cnn int8', found)}")
    assert {"zero point of activations wrong", "high bit of integer weights flipped"} <= set(
        found.kinds
    )
    assert found.caught(found.chosen) >= 0.95


@pytest.mark.long
def test_rounding_of_another_processor_is_no_fault() -> None:
    """Weights that differ by one in 10^5: no answer of the chosen set changes."""
    model, (images, _) = cnn(), evaluation()
    rows = planted(model).chosen
    before = classes(answers(model, images[rows]))
    for seed in range(20):
        proto, rng = onnx.load_from_string(model), np.random.default_rng(seed)
        for tensor in proto.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            moved = array * (1 + 1e-5 * rng.standard_normal(array.shape)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(moved), tensor.name))
        assert np.array_equal(classes(answers(proto.SerializeToString(), images[rows])), before)


def test_one_changed_answer_is_enough_in_a_small_set_only() -> None:
    assert sensitive_count(AGREEMENT) == 49
    assert 48 / 49 < AGREEMENT <= 49 / 50
    assert sensitive_count(0.9) == 9
    assert sensitive_count(0.5) == 1


# The choice.


def scores_with(margins: Array, kinds: Array, count: int = 4) -> Array:
    """Scores whose two highest differ by ``margins``; the class is ``kinds``."""
    scores = np.zeros((len(margins), count), np.float32)
    scores[np.arange(len(kinds)), (kinds + 1) % count] = 2.0
    scores[np.arange(len(kinds)), kinds] = 2.0 + margins
    return scores


def observed(scores: Array, inputs: Array | None = None, *others: Array) -> Observed:
    given = np.zeros((len(scores), 1)) if inputs is None else inputs
    return Observed("classification", {"x": given}, [{"y": one} for one in (scores, *others)], "y")


def test_each_class_and_then_the_closest_cases_are_chosen() -> None:
    rng = np.random.default_rng(0)
    margins = rng.uniform(0.1, 5.0, 400)
    kinds = np.where(np.arange(400) < 390, 0, 1 + np.arange(400) % 3)  # classes 1 to 3 are rare
    rows = choose_golden(observed(scores_with(margins, kinds)), 40)
    assert len(rows) == len(set(rows.tolist())) == 40
    assert (np.diff(rows) > 0).all()
    assert set(kinds[rows]) == {0, 1, 2, 3}
    assert int(margins[kinds == 0].argmin()) in rows
    assert np.median(margins[rows]) < np.median(margins) / 2


def test_cases_that_another_processor_may_answer_otherwise_come_last() -> None:
    margins = np.linspace(1.0, 2.0, 100)
    margins[3] = FRAGILE  # of a median of 1.5: by a hair
    kinds = np.zeros(100, np.int64)
    scores = scores_with(margins, kinds)
    other = scores.copy()
    other[5] = other[5][[1, 0, 2, 3]]  # another variant answers otherwise
    rows = choose_golden(observed(scores, None, other), 60)
    assert 3 not in rows
    assert 5 not in rows
    assert {4, 6} <= set(rows.tolist())
    assert len(choose_golden(observed(scores, None, other), 100)) == 100


def test_extremes_of_inputs_and_channels_are_chosen() -> None:
    margins = np.linspace(1.0, 2.0, 200)
    inputs = np.zeros((200, 2), np.float32)
    inputs[150, 0], inputs[160, 1], inputs[170, 1] = 9.0, 9.0, -9.0
    scores = scores_with(margins, np.arange(200) % 4)
    plain = observed(scores, inputs)
    assert {150, 160, 170} <= set(choose_golden(plain, 40).tolist())
    peaks = np.zeros((200, 3), np.float32)
    peaks[180, 2] = 1.0
    inside = Observed("classification", {"x": inputs}, plain.answers, "y", internal={"relu": peaks})
    assert 180 not in choose_golden(plain, 40)
    assert 180 in choose_golden(inside, 40)


def test_a_score_that_is_not_finite_has_no_margin() -> None:
    scores = np.array([[1.0, 3.0], [np.inf, 1.0], [np.nan, 0.0]])
    assert margins_of(scores).tolist() == [2.0, 0.0, 0.0]


def test_a_regressor_is_checked_at_all_sizes_of_its_answers() -> None:
    values = np.random.default_rng(1).normal(0, 1, (500, 1)) ** 3
    seen = Observed("regression", {"x": np.zeros((500, 1))}, [{"y": values}], "y")
    rows = choose_golden(seen, 50)
    assert int(values.argmax()) in rows
    assert int(values.argmin()) in rows
    size = np.abs(values[:, 0])
    groups = np.argsort(np.argsort(size)) * 16 // 500
    assert set(groups[rows]) == set(range(16))


def test_a_detector_is_checked_where_a_score_is_near_the_limit() -> None:
    boxes = np.zeros((200, 2, 6), np.float32)
    boxes[:, 0, 4], boxes[:, 0, 5] = 0.95, np.arange(200) % 3
    boxes[77, 1, 4] = 0.51  # just above the limit of 0.5
    seen = Observed(
        "detection", {"x": np.zeros((200, 1))}, [{"y": boxes}], "y", MeanPrecision(boxes="y")
    )
    rows = choose_golden(seen, 30)
    assert 77 in rows
    assert set((rows % 3).tolist()) == {0, 1, 2}


def test_a_segmentation_is_checked_where_pixels_are_close() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 0.1, (60, 3, 4, 4))
    scores[:, 0] += 5.0
    scores[13, 1] += 4.95
    scores[40, 2] += 10.0  # the only one of class 2
    seen = Observed("segmentation", {"x": np.zeros((60, 1))}, [{"y": scores}], "y")
    assert {13, 40} <= set(choose_golden(seen, 10).tolist())


def test_other_tasks_are_spread_over_the_data() -> None:
    seen = Observed("none", {"x": np.zeros((100, 1))}, [{"y": np.zeros((100, 1))}], "y")
    rows = choose_golden(seen, 10)
    assert len(rows) == 10
    assert np.diff([0, *rows, 100]).max() <= 20


def test_peaks_are_those_of_each_channel_and_case() -> None:
    images = evaluation()[0][:70]
    peaks = channel_peaks(perceptron(), {"x": images})
    assert {name: one.shape for name, one in peaks.items()} == {
        "sum1": (70, 32),
        "hidden": (70, 32),
    }
    assert np.array_equal(np.maximum(peaks["sum1"], 0), peaks["hidden"])
