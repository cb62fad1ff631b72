"""Each comparison measures what its task needs, and a value that is not finite agrees with nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.comparisons import (
    BUILT_IN,
    Comparison,
    Cosine,
    Elementwise,
    Exact,
    MeanIou,
    MeanPrecision,
    PluginComparison,
    Top1,
    compared_outputs,
    comparison_name,
    comparison_text,
)
from edgefleet.serving.comparisons import compare, worst_case

NEAR = Elementwise(outputs=("y",), absolute=0.5, relative=0.1)
ALL: tuple[Comparison, ...] = (
    Top1(output="y"),
    NEAR,
    Cosine(output="y", least=0.9),
    Exact(outputs=("y",)),
    MeanIou(output="y", class_axis=1),
    MeanPrecision(boxes="y"),
)


def measure(comparison: Comparison, got: object, wanted: object) -> float:
    return compare(comparison, {"y": np.array(got)}, {"y": np.array(wanted)})


def test_every_comparison_has_its_name_its_outputs_and_its_words() -> None:
    assert tuple(comparison_name(one) for one in ALL) == BUILT_IN
    assert {compared_outputs(one) for one in ALL} == {("y",)}
    assert len({comparison_text(one) for one in (*ALL, None)}) == len(ALL) + 1
    assert comparison_name(None) == ""
    assert comparison_name(PluginComparison(name="ours", outputs=("y",))) == "plugin:ours"


@pytest.mark.parametrize(
    ("got", "share"),
    [
        ([[10.0], [20.0]], 1.0),
        ([[11.5], [22.5]], 1.0),  # at the limits: 0.5 + 10 %
        ([[11.6], [22.5]], 0.5),
        ([[11.6], [17.4]], 0.0),
        ([[np.nan], [np.inf]], 0.0),
        ([[1e300], [-1e300]], 0.0),
    ],
)
def test_elementwise_allows_an_absolute_and_a_relative_difference(
    got: list[list[float]], share: float
) -> None:
    assert measure(NEAR, got, [[10.0], [20.0]]) == share


def test_every_value_of_a_case_must_be_near() -> None:
    assert measure(NEAR, [[10.0, 99.0], [1.0, 1.0]], [[10.0, 10.0], [1.0, 1.0]]) == 0.5


def test_the_worst_case_is_named() -> None:
    got = {"y": np.array([[1.0], [np.nan], [3.0]])}
    wanted = {"y": np.array([[1.0], [2.0], [9.0]])}
    assert worst_case(NEAR, got, wanted) == "case 1 of y is nan instead of 2"
    assert worst_case(Exact(outputs=("y",)), got, wanted) == ""


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=3), st.floats(0.01, 100))
def test_the_cosine_of_a_vector_with_itself_at_another_length_is_one(
    vector: list[float], factor: float
) -> None:
    array = np.array([vector])
    if np.linalg.norm(array) < 1e-6:
        return
    assert measure(Cosine(output="y", least=0.999), array * factor, array) == 1.0
    assert measure(Cosine(output="y", least=0.999), -array * factor, array) == 0.0


def test_a_vector_of_zeros_or_of_no_numbers_agrees_with_nothing() -> None:
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, 1.0]]):
        assert measure(Cosine(output="y", least=-1.0), bad, [[1.0, 1.0]]) == 0.0


def test_texts_are_equal_or_not() -> None:
    got = np.array([["run"], ["jam"]], object)
    assert measure(Exact(outputs=("y",)), got, [["run"], ["stop"]]) == 0.5


def test_mean_iou_by_hand() -> None:
    wanted = [[0, 0, 1, 1]]
    assert measure(MeanIou(output="y", class_axis=-1), wanted, wanted) == 1.0
    # Class 0: 1 of 2. Class 1: 2 of 3.
    assert measure(MeanIou(output="y", class_axis=-1), [[0, 1, 1, 1]], wanted) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )
    scores = np.array([[[0.9, 0.1, 0.1, 0.1], [0.1, 0.9, 0.9, np.nan]]])
    # The pixel without a number has no class: class 1 has 1 of 3.
    assert measure(MeanIou(output="y", class_axis=1), scores, wanted) == pytest.approx(
        (1 / 2 + 1 / 3) / 2
    )


def box(left: float, score: float, number: int = 0) -> list[float]:
    return [left, 0.0, left + 10, 10.0, score, number]


NONE = box(0, 0.0)
MAP = MeanPrecision(boxes="y")


@pytest.mark.parametrize(
    ("got", "wanted", "share"),
    [
        ([[box(0, 0.9)]], [[box(0, 1)]], 1.0),
        ([[box(3, 0.9)]], [[box(0, 1)]], 1.0),  # IoU 7 / 13
        ([[box(4, 0.9)]], [[box(0, 1)]], 0.0),  # IoU 6 / 14
        ([[box(0, 0.9, 1)]], [[box(0, 1)]], 0.0),  # another class
        ([[NONE]], [[box(0, 1)]], 0.0),
        ([[NONE]], [[NONE]], 1.0),
        ([[box(0, 0.9)]], [[NONE]], 0.0),  # an invented box
        ([[box(0, 0.9), box(50, 0.8)]], [[box(0, 1), box(100, 1)]], 0.5),  # half of the recall
        ([[box(0, 0.8), box(50, 0.9)]], [[box(0, 1), NONE]], 0.5),  # the better score is wrong
        ([[box(0, 0.9), box(1, 0.8)]], [[box(0, 1), NONE]], 1.0),  # found twice, after the first
        ([[box(0, 0.9)], [box(0, 0.8)]], [[box(0, 1)], [box(90, 1)]], 0.5),  # of two cases
        ([[[np.nan, 0, 10, 10, 0.9, 0]]], [[box(0, 1)]], 0.0),
    ],
)
def test_mean_average_precision_by_hand(got: object, wanted: object, share: float) -> None:
    assert measure(MAP, got, wanted) == pytest.approx(share)


def test_boxes_scores_and_classes_may_be_three_outputs() -> None:
    rule = MeanPrecision(boxes="b", scores="s", classes="c")
    tensors = {
        "b": np.array([[[0, 0, 10, 10], [20, 0, 30, 10]]], np.float32),
        "s": np.array([[0.9, 0.6]], np.float32),
        "c": np.array([[2, 3]], np.float32),
    }
    assert compare(rule, tensors, tensors) == 1.0
    other = {**tensors, "c": np.array([[2, 4]], np.float32)}
    assert compare(rule, other, tensors) == pytest.approx(1 / 3)  # classes 2, 3, and 4 invented
    by_class = MeanPrecision(boxes="b", scores="s")
    scores = np.zeros((1, 2, 5), np.float32)
    scores[0, 0, 2], scores[0, 1, 3] = 0.9, 0.6
    assert compare(by_class, {**tensors, "s": scores}, {**tensors, "s": scores}) == 1.0


@pytest.mark.parametrize(
    "comparison", [NEAR, Exact(outputs=("y",)), MeanIou(output="y", class_axis=-1), MAP]
)
def test_answers_of_another_shape_are_a_typed_error(comparison: Comparison) -> None:
    with pytest.raises(PublisherError) as caught:
        measure(comparison, np.zeros((2, 3, 7)), np.zeros((2, 4, 5)))
    assert caught.value.code == "golden_mismatch"


def test_a_plug_in_that_is_not_installed_is_named() -> None:
    with pytest.raises(PublisherError, match="'ours' is not installed"):
        measure(PluginComparison(name="ours", outputs=("y",)), [1.0], [1.0])
