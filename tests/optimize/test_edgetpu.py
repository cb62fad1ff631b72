"""The Edge TPU: coverage by the table of operators, the compiler's log, and a stand-in for it.

No compiler and no Edge TPU were here. The logs are of issues of google-coral/edgetpu.
"""

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.edgetpu.compiler import MAPPED, LogRow, compiled, read_log
from edgefleet.optimize.edgetpu.coverage import coverage, covered
from edgefleet.optimize.edgetpu.operators import OPERATORS, OperatorFacts, TensorFacts, why_not
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import DynamicInt8, StaticInt8, Step
from edgefleet.optimize.tflite_steps.technique import TfliteTechnique
from support.tflite_digits import digits, write_digits

INT8 = StaticInt8(activations="int8", integer_io=True)
LOG = """Edge TPU Compiler version 16.0.384591198
Input: mnist4.tflite
Output: mnist4_edgetpu.tflite

Operator                       Count      Status

RESHAPE                        1          Mapped to Edge TPU
CONV_2D                        2          Mapped to Edge TPU
SOFTMAX                        1          Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
DEQUANTIZE                     1          Operation is working on an unsupported data type
CONCATENATION                  1          More than one subgraph is not supported
"""
OUTPUT = LOG.replace(
    "\nOperator ",
    "\nModel compiled successfully in 44 ms.\n\nNumber of Edge TPU subgraphs: 1\n"
    "Total number of operations: 7\n\nOperator ",
)


def variant(folder: Path, step: Step = INT8, batch: int = 1) -> Path:
    source, path = write_digits(folder / "float.tflite", batch), folder / "model.tflite"
    TfliteTechnique().apply(step, source, CalibrationData({"image": digits().train[:20]}), path)
    return path


def test_a_full_integer_model_with_one_case_maps_whole(tmp_path: Path) -> None:
    found = coverage(variant(tmp_path))
    assert [one.kind for one in found.operators] == [
        "CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip
    assert (found.mapped, found.share, found.partitions) == (6, 1.0, 1)
    assert found.text == "6 of 6 operators map to the Edge TPU."


def test_the_converters_of_float_inputs_stay_on_the_cpu(tmp_path: Path) -> None:
    found = coverage(variant(tmp_path, StaticInt8(activations="int8")))
    cpu = [(one.kind, one.reason) for one in found.operators if not one.mapped]
    assert [kind for kind, _ in cpu] == ["QUANTIZE", "DEQUANTIZE"]
    assert cpu[0][1] == "tensor 'image' is FLOAT32, not an 8-bit integer"
    assert (found.mapped, found.partitions) == (6, 1)
    assert found.text.startswith("6 of 8 operators map to the Edge TPU. QUANTIZE ")


@pytest.mark.parametrize(
    ("step", "batch", "reason"),
    [
        (INT8, -1, "tensor 'image' has a size that is open, such as the batch"),
        (INT8, 4, "tensor 'image' [4, 8, 8, 1] has an outer dimension above 1"),
        (DynamicInt8(), 1, "tensor 'image' is FLOAT32, not an 8-bit integer"),
    ],
    ids=["open batch", "batch of 4", "float"],
)
def test_a_model_of_which_nothing_maps_says_why(
    step: Step, batch: int, reason: str, tmp_path: Path
) -> None:
    found = coverage(variant(tmp_path, step, batch))
    assert found.operators[0].reason == reason
    assert not found.operators[0].mapped


def test_an_operator_that_stays_in_float_ends_the_partition(tmp_path: Path) -> None:
    step = StaticInt8(activations="int8", integer_io=True, keep_float=("hidden",))
    found = coverage(variant(tmp_path, step))
    assert [(one.kind, one.mapped) for one in found.operators] == [
        ("CONV_2D", True), ("MAX_POOL_2D", True), ("RESHAPE", True), ("DEQUANTIZE", False),
        ("FULLY_CONNECTED", False), ("QUANTIZE", False), ("FULLY_CONNECTED", False),
        ("SOFTMAX", False),
    ]  # fmt: skip
    assert found.partitions == 2
    assert found.operators[-1].reason == (
        "supported, but after the first partition: the compiler maps one"
    )


def tensor(*shape: int, value: Any = None, datatype: str = "INT8") -> TensorFacts:
    return TensorFacts("t", datatype, shape, False, None if value is None else np.array(value))


def operator(kind: str, *inputs: TensorFacts, out: TensorFacts, **options: int) -> OperatorFacts:
    return OperatorFacts(kind, inputs, (out,), SimpleNamespace(**options))


IMAGE = tensor(1, 4, 4, 8)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (operator("EXP", IMAGE, out=IMAGE), "the Edge TPU has no such operator"),
        (operator("ADD", IMAGE, IMAGE, out=IMAGE), ""),
        (operator("MAX_POOL_2D", IMAGE, out=IMAGE, fusedActivationFunction=1), "it has a fused"),
        (
            operator("CONV_2D", IMAGE, tensor(8, 3, 3, 8, value=[1]), out=IMAGE,
                     dilationWFactor=2, dilationHFactor=1),
            "its dilation is 2 in x and 1 in y",
        ),
        (operator("CONV_2D", IMAGE, tensor(1, 3, 3, 8), out=IMAGE), "its weights are not a const"),
        (operator("MEAN", IMAGE, tensor(2, value=[1, 2]), out=tensor(1, 8)), ""),
        (operator("MEAN", IMAGE, tensor(1, value=[-4]), out=IMAGE), "it works on the batch"),
        (
            operator("MEAN", tensor(1, 4, 4, 6), tensor(1, value=[-1]), out=tensor(1, 4, 4)),
            "it reduces a depth that is no multiple of 4",
        ),
        (
            operator("PAD", IMAGE, tensor(4, 2, value=[1, 0, 0, 0, 0, 0, 0, 0]), out=IMAGE),
            "it pads the batch",
        ),
        (operator("PAD", IMAGE, tensor(4, 2, value=[0, 0, 1, 1, 1, 1, 0, 0]), out=IMAGE), ""),
        (operator("CONCATENATION", IMAGE, tensor(1, 4, 4, 8, value=[[-128, -128]]), out=IMAGE), ""),
        (
            operator("CONCATENATION", IMAGE, tensor(1, 4, 4, 8, value=[[0, 1]]), out=IMAGE),
            "it has a constant input that is not zeros",
        ),
        (
            operator("CONCATENATION", IMAGE, IMAGE, tensor(1, 4, 4, 8, value=[0, 0]), out=IMAGE),
            "it has a constant among 3 inputs",
        ),
        (operator("CONCATENATION", IMAGE, IMAGE, IMAGE, out=IMAGE), ""),
        (operator("SQUEEZE", tensor(1, 5, 10), out=tensor(5, 10)), ""),
        (operator("SQUEEZE", tensor(1, 1, 10), out=tensor(10)), ""),
        (operator("SQUEEZE", tensor(5, 1, 10), out=tensor(5, 10)), "it removes dimension 1 of [5, 1, 10]"),
        (operator("SPLIT", tensor(value=[0]), IMAGE, out=IMAGE), "it splits the batch"),
        (operator("SPLIT", tensor(value=[3]), IMAGE, out=IMAGE), ""),
        (operator("PACK", IMAGE, out=IMAGE, axis=0), "it packs the batch"),
        (operator("SOFTMAX", tensor(1, 16_001), out=tensor(1, 16_001)), "its input has 16,001"),
        (operator("SOFTMAX", tensor(1, 5, 5), out=tensor(1, 5, 5)), "its input [1, 5, 5] has"),
        (
            operator("STRIDED_SLICE", IMAGE, tensor(4, value=[0] * 4), tensor(4, value=[1] * 4),
                     tensor(4, value=[1, 2, 2, 1]), out=IMAGE),
            "not all of its strides are 1",
        ),
        (operator("PRELU", IMAGE, tensor(1, 1, 8, value=[1]), out=IMAGE), ""),
        (operator("PRELU", IMAGE, tensor(4, 4, 8, value=[1]), out=IMAGE), "its alpha has"),
        (
            operator("FULLY_CONNECTED", IMAGE, tensor(8, 8, value=[1]), out=IMAGE),
            "its output [1, 4, 4, 8] has more than one dimension",
        ),
        (
            operator("ADD", IMAGE, tensor(1, 4, 4, 8, datatype="INT16"), out=IMAGE),
            "tensor 't' is INT16, not an 8-bit integer",
        ),
    ],
)  # fmt: skip
def test_the_limits_of_the_table(found: OperatorFacts, reason: str) -> None:
    got = why_not(found)
    assert got.startswith(reason) if reason else not got


def test_the_partitions_are_the_runs_of_supported_operators() -> None:
    good, bad = operator("ADD", IMAGE, out=IMAGE), operator("EXP", IMAGE, out=IMAGE)
    found = covered([bad, good, good, bad, good])
    assert ([one.mapped for one in found.operators], found.partitions) == (
        [False, True, True, False, False], 2,
    )  # fmt: skip
    assert (covered([]).share, covered([bad]).partitions) == (0.0, 0)
    assert len(OPERATORS) == 40


def test_a_file_that_is_not_tflite_is_refused(tmp_path: Path) -> None:
    for data in (b"onnx", b"\x00\x00\x00\x00TFL3"):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(PublisherError) as caught:
            coverage(tmp_path / "m")
        assert caught.value.code == "not_a_model"


@pytest.mark.parametrize(("text", "subgraphs"), [(LOG, 0), (OUTPUT, 1)], ids=["file", "output"])
def test_the_log_of_the_compiler_is_read(text: str, subgraphs: int) -> None:
    log = read_log(text)
    assert (log.version, log.subgraphs, log.total, log.mapped) == (
        "16.0.384591198", subgraphs, 7, 4,
    )  # fmt: skip
    assert log.rows[1] == LogRow(kind="CONV_2D", count=2, status=MAPPED)
    assert log.rows[-1].status == "More than one subgraph is not supported"


YOLO = """Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 577 ms.

Input model: yolov3-tiny_int8.tflite
Input size: 8.58MiB
Output model: yolov3-tiny_int8_edgetpu.tflite
Output size: 8.70MiB
On-chip memory used for caching model parameters: 3.00KiB
On-chip memory remaining for caching model parameters: 7.67MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 36
Operation log: yolov3-tiny_int8_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 34

Operator                       Count      Status

MAX_POOL_2D                    6          More than one subgraph is not supported
QUANTIZE                       2          Operation is otherwise supported, but not mapped due to some unspecified limitation
QUANTIZE                       1          Mapped to Edge TPU
QUANTIZE                       1          More than one subgraph is not supported
CONV_2D                        1          Mapped to Edge TPU
CONV_2D                        12         More than one subgraph is not supported
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
LEAKY_RELU                     11         Operation not supported
CONCATENATION                  1          More than one subgraph is not supported
"""


def test_a_whole_published_log_adds_up() -> None:
    log = read_log(YOLO)
    assert (log.version, log.subgraphs, log.total, log.mapped) == ("15.0.340273435", 1, 36, 2)
    assert sum(one.count for one in log.rows) == 36
    assert sum(one.count for one in log.rows if one.status == MAPPED) == 2
    assert {one.kind for one in log.rows if one.status == "Operation not supported"} == {
        "LEAKY_RELU"
    }


def test_a_log_that_lists_only_what_stays_on_the_cpu_has_the_mapped_number() -> None:
    kept = [line for line in YOLO.splitlines() if MAPPED not in line]
    assert read_log("\n".join(kept)).mapped == 2


@pytest.mark.parametrize("text", ["", "Invalid model: x.tflite\nModel not quantized", LOG[:90]])
def test_a_log_without_a_table_is_refused(text: str) -> None:
    with pytest.raises(PublisherError, match="no table of operators") as caught:
        read_log(text)
    assert caught.value.code == "step_failed"


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "bin" / "edgetpu_compiler"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_where_the_compiler_is_its_file_and_log_are_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"full integer")
    # -s -t 180 -o FOLDER MODEL
    script = f'cp "$6" "$5/model_edgetpu.tflite"; cat <<END\n{OUTPUT}\nEND'
    stand_in(tmp_path, script, monkeypatch)
    found = compiled(model, tmp_path)
    assert (found.skipped, found.log and found.log.mapped) == ("", 4)
    assert Path(found.path).read_bytes() == b"full integer"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Internal compiler error. Aborting!' >&2; exit 1", "Internal compiler error"),
        ("exit 0", "edgetpu_compiler failed"),
        (
            f'cp "$6" "$5/model_edgetpu.tflite"; cat <<END\n{LOG.replace(MAPPED, "Not mapped")}\nEND',
            "mapped none of 7 operators: RESHAPE has the status 'Not mapped'",
        ),
    ],
)
def test_a_compiler_that_fails_or_maps_nothing_is_an_error(
    script: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.tflite").write_bytes(b"x")
    stand_in(tmp_path, script, monkeypatch)
    with pytest.raises(PublisherError, match=words) as caught:
        compiled(tmp_path / "model.tflite", tmp_path)
    assert caught.value.code == "step_failed"


def test_without_the_compiler_the_step_is_skipped_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = compiled(tmp_path / "model.tflite", tmp_path)
    assert (found.path, found.log) == ("", None)
    assert found.skipped.startswith("edgetpu_compiler is not installed")
