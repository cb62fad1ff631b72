"""The metrics of all tasks: their values against other programs or by hand, and their evidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import Arrays, EvaluationData
from edgefleet.optimize.judge import judge
from edgefleet.optimize.judgement import Refusal
from edgefleet.optimize.measurement import Budget
from edgefleet.optimize.metrics.by_task import METRICS, evaluate, metric_for
from edgefleet.optimize.metrics.score import Metric, Score
from edgefleet.optimize.metrics.texts import edit_distance
from edgefleet.optimize.paired import RESAMPLES, resample_counts
from edgefleet.optimize.samples import Array
from edgefleet.protocol.comparisons import MeanPrecision
from edgefleet.protocol.release import Task
from edgefleet.serving.average_precision import mean_precision
from edgefleet.serving.comparisons import compare
from support.measurements import measured

Given = tuple[Task, str, Arrays, Arrays]
CASES = 40


def scores_of(labels: Array, wrong: float, classes: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    answers = np.where(
        rng.random(len(labels)) < wrong, rng.integers(0, classes, len(labels)), labels
    )
    return np.eye(classes, dtype=np.float32)[answers] + rng.uniform(0, 0.5, (len(labels), classes))


def boxes_of(seed: int, shift: float) -> tuple[Array, Array]:
    """Wanted and found boxes of two classes: x1, y1, x2, y2, score, class."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (CASES, 3, 2))
    wanted = np.concatenate([corners, corners + 20, np.zeros((CASES, 3, 2))], axis=2)
    wanted[..., 4] = 1.0
    wanted[..., 5] = rng.integers(0, 2, (CASES, 3))
    found = wanted.copy()
    found[..., :4] += rng.normal(0, shift, (CASES, 3, 1))
    found[..., 4] = rng.uniform(0.3, 1.0, (CASES, 3))
    return wanted.astype(np.float32), found.astype(np.float32)


def given(name: str, seed: int = 0) -> Given:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, CASES)
    match name:
        case "top1" | "f1":
            return "classification", name, {"y": scores_of(labels, 0.3, 4, seed)}, {"label": labels}
        case "map":
            wanted, found = boxes_of(seed, 4.0)
            return "detection", name, {"y": found}, {"y": wanted}
        case "iou":
            pixels = rng.integers(0, 3, (CASES, 4, 4))
            scores = np.moveaxis(np.eye(3)[pixels], -1, 1) + rng.uniform(0, 1.4, (CASES, 3, 4, 4))
            return "segmentation", name, {"y": scores}, {"y": pixels}
        case "rmse" | "mae" | "cosine":
            vectors = rng.normal(1.0, 1.0, (CASES, 3))
            task: Task = "embedding" if name == "cosine" else "regression"
            return task, name, {"y": vectors + rng.normal(0, 0.3, (CASES, 3))}, {"y": vectors}
        case _:
            words = np.array(["a road", "a red car", "two cars", "no car at all"])
            answers = np.where(rng.random(CASES) < 0.4, "a car", words[labels])
            return "text", name, {"y": answers[:, None]}, {"y": words[labels][:, None]}


ALL = ("top1", "f1", "map", "iou", "rmse", "mae", "cosine", "wer", "cer", "exact")


def scored(one: Given) -> Score:
    task, name, got, truth = one
    return metric_for(task, "y", name).score(got, truth)


def resample(arrays: Arrays, counts: Array) -> Arrays:
    return {name: np.repeat(array, counts, axis=0) for name, array in arrays.items()}


def test_every_task_has_a_metric_and_every_metric_a_task() -> None:
    assert set(METRICS) == set(Task.__args__)
    assert {name for names in METRICS.values() for name in names} == set(ALL)
    for task, names in METRICS.items():
        assert metric_for(task, "y").name == names[0]


@pytest.mark.parametrize("name", ALL)
def test_the_evidence_is_that_of_the_metric_on_resampled_cases(name: str) -> None:
    """Values on resamples are those of the metric on the repeated cases themselves."""
    task, _, got, truth = one = given(name)
    score = scored(one)
    if score.cases:
        assert score.resampled is None
        assert score.value == pytest.approx(np.mean(score.cases))
        single = metric_for(task, "y", name).score(
            resample(got, np.eye(CASES, dtype=np.int64)[7]),
            resample(truth, np.eye(CASES, dtype=np.int64)[7]),
        )
        assert single.value == pytest.approx(score.cases[7])
        return
    assert score.resampled is not None
    assert len(score.resampled.values) == RESAMPLES
    assert score.resampled.cases == CASES
    counts = next(resample_counts(CASES))
    for number in (0, 41):
        again = metric_for(task, "y", name).score(
            resample(got, counts[number]), resample(truth, counts[number])
        )
        assert score.resampled.values[number] == pytest.approx(again.value)


def test_values_are_those_of_scikit_learn() -> None:
    _, _, got, truth = one = given("f1")
    answers, labels = got["y"].argmax(axis=1), truth["label"]
    assert scored(one).value == pytest.approx(sk.f1_score(labels, answers, average="macro"))
    assert scored(given("top1")).value == pytest.approx(sk.accuracy_score(labels, answers))
    _, _, got, truth = one = given("iou")
    flat = got["y"].argmax(axis=1).ravel(), truth["y"].ravel()
    assert scored(one).value == pytest.approx(sk.jaccard_score(*flat, average="macro"))
    _, _, got, truth = one = given("rmse")
    assert scored(one).value == pytest.approx(
        -sk.root_mean_squared_error(truth["y"].ravel(), got["y"].ravel())
    )
    assert scored(given("mae")).value == pytest.approx(
        -sk.mean_absolute_error(truth["y"], got["y"])
    )
    cosines = sk.pairwise.paired_cosine_distances(truth["y"], got["y"])
    assert scored(given("cosine")).value == pytest.approx(1 - cosines.mean())


def test_a_detector_has_the_value_that_devices_compute() -> None:
    _, _, got, truth = one = given("map")
    rule = MeanPrecision(boxes="y")
    assert scored(one).value == pytest.approx(mean_precision(rule, got, truth))
    assert scored(one).value == pytest.approx(compare(rule, got, truth))
    assert 0.3 < scored(one).value < 0.99
    nothing = {"y": np.zeros((CASES, 1, 6), np.float32)}
    assert metric_for("detection", "y").score(nothing, nothing).value == 1.0


@pytest.mark.parametrize(
    ("got", "wanted", "errors"),
    [
        ("", "", 0),
        ("a b c", "a b c", 0),
        ("a c", "a b c", 1),  # deletion
        ("a x b c", "a b c", 1),  # insertion
        ("a x c", "a b c", 1),  # substitution
        ("", "a b", 2),
        ("x y z", "", 3),
        ("b a", "a b", 2),
    ],
)
def test_errors_of_texts_are_counted_as_in_the_word_error_rate(
    got: str, wanted: str, errors: int
) -> None:
    assert edit_distance(got.split(), wanted.split()) == errors


def test_the_edit_distance_is_that_of_kitten_and_sitting() -> None:
    assert edit_distance(list("kitten"), list("sitting")) == 3
    got, truth = {"y": np.array(["kitten a"])}, {"y": np.array(["sitting a"])}
    assert metric_for("text", "y", "cer").score(got, truth).value == pytest.approx(1 - 3 / 9)
    assert metric_for("text", "y", "wer").score(got, truth).value == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["top1", "f1", "rmse", "mae", "cosine", "map", "iou"])
def test_answers_that_are_not_finite_give_a_finite_and_worse_score(name: str) -> None:
    task, _, got, truth = one = given(name)
    broken = {"y": np.where(np.arange(CASES) < 20, np.nan, got["y"].T).T}
    found = metric_for(task, "y", name).score(broken, truth)
    assert np.isfinite(found.value)
    assert found.value < scored(one).value


def test_the_evidence_is_paired_so_that_a_small_loss_shows() -> None:
    """MAP of boxes that drift: the same noise in both, so that the interval is of the drift."""
    wanted, found = boxes_of(3, 2.0)
    drifted = found.copy()
    drifted[..., :4] += 3.0
    base, worse = ({"y": one} for one in (found, drifted))
    metric = metric_for("detection", "y")

    def measure(name: str, got: Arrays, size: int) -> Any:
        score = metric.score(got, {"y": wanted})
        return measured(name, value=score.value, resampled=score.resampled, size=size)

    baseline = measure("baseline", base, 40)
    assert judge(baseline, measure("same", base, 10), Budget()).refused is None
    assert judge(baseline, measure("drift", worse, 10), Budget()).refused == Refusal.ACCURACY_LOST


# Callables of the publisher.


def by_case(got: Arrays, truth: Arrays) -> Array:
    return np.asarray(got["y"][:, 0] > truth["y"][:, 0])


def median_error(got: Arrays, truth: Arrays) -> float:
    return -float(np.median(np.abs(got["y"] - truth["y"])))


def raises(got: Arrays, truth: Arrays) -> float:
    raise KeyError("lens")


def test_a_function_may_give_scores_of_cases_or_a_value() -> None:
    task, _, got, truth = given("mae")
    by_cases = metric_for(task, "y", by_case)
    assert (by_cases.name, len(by_cases.score(got, truth).cases)) == ("by_case", CASES)
    whole = metric_for(task, "y", median_error).score(got, truth)
    assert whole.value == median_error(got, truth)
    assert whole.resampled is not None
    assert len(whole.resampled.values) == 200
    counts = next(resample_counts(CASES))[5]
    again = median_error(resample(got, counts), resample(truth, counts))
    assert whole.resampled.values[5] == again


def nothing(got: Arrays, truth: Arrays) -> float:
    return float("nan")


def square(got: Arrays, truth: Arrays) -> Array:
    return np.ones((3, 3))


WRONG: list[tuple[Metric, Mapping[str, Any], str]] = [
    (metric_for("regression", "y", raises), {}, "'raises' failed: KeyError: 'lens'"),
    (metric_for("regression", "y", nothing), {}, "which is not finite"),
    (metric_for("regression", "y", square), {}, "an array of shape (3, 3) for 40 cases"),
    (metric_for("regression", "y", "rmse"), {"y": np.ones((39, 3))}, "39 right answers"),
    (metric_for("regression", "y", "rmse"), {"y": np.ones((CASES, 2))}, "the truth (2,)"),
    (metric_for("regression", "x", "mae"), {}, "there is no output 'x'; there are y"),
    (metric_for("embedding", "y"), {"z": np.ones(3)}, "there is no right answer 'y'"),
    (metric_for("classification", "y"), {"label": np.ones(CASES)}, "one whole number per case"),
    (metric_for("classification", "y"), {"label": np.full(CASES, -1)}, "-1 is negative"),
    (metric_for("segmentation", "y"), {"y": np.ones((CASES, 2, 2))}, "the truth (40, 2, 2)"),
    (metric_for("detection", "y"), {"y": np.ones((CASES, 2, 5))}, "not [boxes, 6]"),
    (metric_for("text", "y"), {"y": np.array(["a"] * CASES)}, "one per case is needed"),
]


@pytest.mark.parametrize(("metric", "truth", "message"), WRONG)
def test_what_does_not_fit_is_refused_with_the_name_of_the_metric(
    metric: Metric, truth: Mapping[str, Any], message: str
) -> None:
    got = {"y": np.ones((CASES, 3))}
    with pytest.raises(PublisherError) as caught:
        metric.score(got, truth or {"y": np.ones((CASES, 3))})
    assert caught.value.code == "metric_failed"
    assert caught.value.field == metric.name
    assert message in caught.value.message


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(PublisherError) as caught:
        metric_for("detection", "y", "top1")
    assert (caught.value.code, caught.value.field) == ("bad_metric", "metric")


def test_answers_must_be_those_of_all_cases() -> None:
    data = EvaluationData("regression", {"x": np.ones((4, 1))}, {"y": np.ones((4, 1))})
    metric = metric_for("regression", "y")
    assert evaluate(metric, data, {"y": np.zeros((4, 1))}).value == -1.0
    with pytest.raises(PublisherError, match="has 3 answers to 4 cases"):
        evaluate(metric, data, {"y": np.zeros((3, 1))})
    empty = EvaluationData("regression", {"x": np.ones((0, 1))}, {"y": np.ones((0, 1))})
    with pytest.raises(PublisherError, match="has no cases"):
        evaluate(metric, empty, {"y": np.zeros((0, 1))})
