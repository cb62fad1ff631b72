"""Data in memory and from functions, and data that was not prepared alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.data_checks import check_alike
from edgefleet.optimize.data_files import Data, DataReader
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.model_file import ModelFacts
from edgefleet.serving.runtime_versions import FormatVersions

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(7, 2)).astype(np.float32)
Y = np.arange(7)


@pytest.fixture
def reader(tmp_path: Path) -> DataReader:
    model = ModelFacts(
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
        (TensorSpec(name="scores", datatype="FP32", shape=(-1, 7)),),
        FormatVersions(9, 17),
    )
    return DataReader(model, tmp_path)


def batches() -> Iterator[dict[str, Any]]:
    """Of three cases; the last has one."""
    for start in range(0, 7, 3):
        yield {"x": X[start : start + 3], "y": Y[start : start + 3]}


@pytest.mark.parametrize(
    "data",
    [{"x": X, "y": Y}, lambda: {"x": X, "y": Y}, batches],
    ids=["arrays", "function", "batches"],
)
def test_data_may_be_arrays_or_a_function(reader: DataReader, data: Data) -> None:
    samples = reader.evaluation(data)
    assert np.array_equal(samples.inputs["x"], X)
    assert samples.truth is not None
    assert np.array_equal(samples.truth, Y)
    assert np.array_equal(reader.calibration(data).inputs["x"], X)


def raises() -> Any:
    raise OSError("the disk is gone")


def unlike() -> Iterator[dict[str, Any]]:
    yield {"x": X}
    yield {"z": X}


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        ({"x": X[:, :1]}, "x", "shape"),
        ({"x": X.astype(complex)}, "x", "complex128"),
        ({"x": np.array([["a", "b"]])}, "x", "The array is <U1"),
        ({"x": X * np.nan}, "x", "not a finite number"),
        ({"x": X[:0]}, "x", "no cases"),
        ({"x": np.array([None, 3])}, "x", "object"),
        (raises, "raises", "the disk is gone"),
        (unlike, "unlike", "Batch 1 has the arrays z"),
        (lambda: iter(()), "<lambda>", "no batches"),
        (lambda: 5, "<lambda>", "not iterable"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    reader: DataReader, data: Data, field: str, told: str
) -> None:
    with pytest.raises(PublisherError, match=told) as caught:
        reader.calibration(data)
    assert (caught.value.code, caught.value.field) == ("calibration_invalid", field)


PIXELS = RANDOM.beta(0.6, 0.9, size=(200, 3, 8, 8)).astype(np.float32)  # many dark and bright ones
NORMAL = (PIXELS - 0.45) / 0.225


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x * 255, lambda x: x * 2 - 1, lambda x: (x - 0.45) / 0.225, lambda x: x / 255],
    ids=["0 to 255", "-1 to 1", "normalised", "divided twice"],
)
def test_calibration_data_that_was_prepared_otherwise_is_refused(
    wrong: Callable[[Any], Any],
) -> None:
    for one, other in ((wrong(PIXELS[:100]), PIXELS[100:]), (PIXELS[:100], wrong(PIXELS[100:]))):
        with pytest.raises(PublisherError, match="not prepared alike") as caught:
            check_alike({"image": one}, {"image": other})
        assert (caught.value.code, caught.value.field) == ("calibration_invalid", "image")


def test_data_of_one_kind_is_not_refused() -> None:
    check_alike({"image": NORMAL[:100]}, {"image": NORMAL[100:]})
    for seed in range(200):  # one value a case, with heavy tails
        values = np.random.default_rng(seed).standard_cauchy((150, 1)).astype(np.float32)
        check_alike({"x": values[:50]}, {"x": values[50:]})
    check_alike({"n": np.arange(99)}, {"n": np.arange(99) + 1_000})  # whole numbers name things
    check_alike({"x": X}, {"x": X + 50})  # too few cases to say
