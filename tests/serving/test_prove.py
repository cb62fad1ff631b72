"""The proof: a golden set, run in a separate process, gives a result with its reason."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from edgefleet.protocol.comparisons import Elementwise
from edgefleet.protocol.release import Golden, TensorSpec
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.prove import prove
from support.tiny_models import (
    TinyModel,
    artifact_of,
    classifier,
    pixels,
    prove_request,
    save,
    variant_of,
    write_golden,
)


def run(request: bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "edgefleet.serving.prove"],
        input=request,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "model.onnx")


@pytest.fixture
def request_(tmp_path: Path, model: TinyModel) -> ProveRequest:
    golden = write_golden(tmp_path / "golden.npz", model)
    return prove_request(model, golden, tmp_path / "golden.npz")


def test_a_good_model_passes_and_the_process_ends_with_0(request_: ProveRequest) -> None:
    code, out, _ = run(encode(request_))
    result = decode(out.splitlines()[-1], ProveResult)
    assert code == 0
    assert result.passed
    assert (result.reason, result.accuracy, result.agreement, result.cases) == ("", 1.0, 1.0, 40)


def test_another_model_than_the_golden_set_was_made_with_fails(
    tmp_path: Path, request_: ProveRequest
) -> None:
    other = classifier(tmp_path / "other.onnx", seed=2)
    code, out, _ = run(
        encode(replace(request_, variant=other.variant, artifact_path=str(other.path)))
    )
    result = decode(out.splitlines()[-1], ProveResult)
    assert code == 1
    assert (result.passed, result.reason) == (False, "golden_failed")
    assert "accuracy" in result.detail
    assert "agreement" in result.detail


def test_accuracy_is_the_share_of_labels_and_agreement_the_share_of_references(
    tmp_path: Path, model: TinyModel, request_: ProveRequest
) -> None:
    given = pixels(20)
    expected = model.probabilities(given)
    labels, reference = expected.argmax(axis=1), expected.copy()
    labels[:5] = (labels[:5] + 1) % 10
    reference[:2] = np.roll(reference[:2], 1, axis=1)
    path = tmp_path / "g.npz"
    np.savez(
        path,
        **{"input.pixels": given, "output.probabilities": reference, "label": labels.astype("i8")},
    )

    def judged(min_accuracy: float, min_agreement: float) -> ProveResult:
        golden = Golden(
            artifact=artifact_of(path),
            cases=20,
            min_accuracy=min_accuracy,
            min_agreement=min_agreement,
        )
        return prove(replace(request_, golden=golden, golden_path=str(path)))

    result = judged(0.75, 0.9)
    assert (result.passed, result.accuracy, result.agreement) == (True, 0.75, 0.9)
    assert judged(0.76, 0.9).detail == "accuracy 0.7500 is below 0.7600"
    assert judged(0.75, 0.91).detail == "agreement 0.9000 is below 0.9100"
    assert not judged(float("nan"), 0.9).passed


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "announced"),
    [
        (lambda data: data[:-300], True),
        (lambda data: data[:-300], False),
        (lambda data: data[: len(data) // 2], True),
        (lambda _: b"\x80\x04\x95" + bytes(30) + b".", True),
        (lambda _: b"not a model", True),
        (lambda _: b"", True),
        (lambda data: data[::-1], True),
    ],
)
def test_a_damaged_model_is_a_failure_to_load(
    request_: ProveRequest, change: Callable[[bytes], bytes], announced: bool
) -> None:
    path = Path(request_.artifact_path)
    damage(path, change)
    variant = request_.variant
    if announced:
        variant = replace(variant, artifact=artifact_of(path))
    code, out, _ = run(encode(replace(request_, variant=variant)))
    result = decode(out.splitlines()[-1], ProveResult)
    assert (code, result.passed, result.reason) == (1, False, "load_failed")
    assert result.detail


def test_a_missing_model_is_a_failure_to_load(request_: ProveRequest) -> None:
    Path(request_.artifact_path).unlink()
    assert prove(request_).reason == "load_failed"


class Payload:
    """The function that a loaded pickle would call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return open, ("/nonexistent/opened-by-a-pickle",)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"input.pixels": pixels(40)},
        {
            "input.pixels": pixels(40),
            "output.probabilities": pixels(40),
            "label": np.zeros(40, "i8"),
        },
        {
            "input.image": pixels(40),
            "output.probabilities": np.zeros((40, 10), "f4"),
            "label": np.zeros(40, "i8"),
        },
        {
            "input.pixels": np.array([Payload()] * 40, dtype=object),
            "output.probabilities": np.zeros((40, 10), "f4"),
            "label": np.zeros(40, "i8"),
        },
    ],
    ids=["empty", "half", "another shape", "another name", "a pickle"],
)
def test_a_golden_set_that_does_not_fit_fails_and_opens_no_pickle(
    request_: ProveRequest, arrays: dict[str, Any]
) -> None:
    path = Path(request_.golden_path)
    np.savez(path, **arrays)
    golden = replace(request_.golden, artifact=artifact_of(path))
    result = prove(replace(request_, golden=golden))
    assert (result.passed, result.reason) == (False, "golden_failed")
    assert result.detail.startswith("golden_mismatch")


def test_another_golden_set_than_the_signed_one_fails(request_: ProveRequest) -> None:
    damage(Path(request_.golden_path), lambda data: data + b"x")
    result = prove(request_)
    assert (result.reason, result.detail[:15]) == ("golden_failed", "digest_mismatch")


def test_a_golden_set_with_another_number_of_cases_fails(request_: ProveRequest) -> None:
    result = prove(replace(request_, golden=replace(request_.golden, cases=41)))
    assert result.reason == "golden_failed"


@pytest.mark.parametrize(("batch", "cases"), [(1, 5), (4, 10), (4, 3)])
def test_a_model_with_a_fixed_batch_is_proved_in_batches_of_it(
    tmp_path: Path, batch: int, cases: int
) -> None:
    fixed = classifier(tmp_path / "fixed.onnx", batch=batch)
    golden = write_golden(tmp_path / "g.npz", fixed, cases=cases)
    result = prove(prove_request(fixed, golden, tmp_path / "g.npz"))
    assert (result.passed, result.cases, result.accuracy) == (True, cases, 1.0)


def test_scores_that_are_no_numbers_agree_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save(
        path,
        [helper.make_node("Log", ["pixels"], ["scores"])],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["b", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", 64])],
        [],
    )
    variant = variant_of(
        path,
        (TensorSpec(name="pixels", datatype="FP32", shape=(-1, 64)),),
        (TensorSpec(name="scores", datatype="FP32", shape=(-1, 64)),),
    )
    given = -np.abs(pixels(8))
    np.savez(
        tmp_path / "g.npz",
        **{
            "input.pixels": given,
            "output.scores": np.full((8, 64), np.nan, "f4"),
            "label": np.zeros(8, "i8"),
        },
    )
    golden = Golden(
        artifact=artifact_of(tmp_path / "g.npz"), cases=8, min_accuracy=0.5, min_agreement=0.5
    )
    result = prove(
        ProveRequest(
            variant=variant,
            golden=golden,
            artifact_path=str(path),
            golden_path=str(tmp_path / "g.npz"),
        )
    )
    assert (result.passed, result.accuracy, result.agreement) == (False, 0.0, 0.0)


@pytest.mark.parametrize("data", [b"", b"{}", b"nonsense", b'{"variant": 1}'])
def test_a_request_that_is_none_ends_with_2_and_says_so(data: bytes) -> None:
    code, out, said = run(data)
    assert (code, out) == (2, b"")
    assert said.startswith(b"bad_request")


def test_accuracy_is_required_only_of_a_golden_set_with_truth(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    given = pixels(8)
    path = tmp_path / "values.npz"
    np.savez(path, **{"input.pixels": given, "output.probabilities": model.probabilities(given)})
    golden = Golden(
        artifact=artifact_of(path),
        cases=8,
        min_accuracy=0.5,
        min_agreement=0.9,
        comparison=Elementwise(outputs=("probabilities",), absolute=0.001, relative=0.0),
    )
    refused = prove(prove_request(model, golden, path))
    assert (refused.passed, refused.accuracy, refused.agreement) == (False, None, 1.0)
    assert "the golden set has no truth" in refused.detail
    passed = prove(prove_request(model, replace(golden, min_accuracy=0.0), path))
    assert (passed.passed, passed.accuracy) == (True, None)
