"""Model files and golden sets of a publisher are checked, and no code in them is run."""

import io
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.base.errors import PublisherError
from edgefleet.examples import FOLDER
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving import golden_set
from edgefleet.serving.golden_set import read_golden
from edgefleet.serving.model_file import inspect_model

PIXELS = TensorSpec(name="pixels", datatype="FP32", shape=(-1, 4))
SCORES = TensorSpec(name="scores", datatype="FP32", shape=(-1, 3))


def small_model(**changes: object) -> onnx.ModelProto:
    """``scores = pixels @ weight``, with a dynamic batch."""
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["pixels", "weight"], ["scores"])],
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **changes)


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(PublisherError) as caught:
        inspect_model(path)
    return caught.value.code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_model_tells_its_inputs_and_outputs(file: Path) -> None:
    file.write_bytes(small_model().SerializeToString())
    facts = inspect_model(file)
    assert facts.inputs == (PIXELS,)
    assert facts.outputs == (SCORES,)


def test_weights_that_older_exporters_list_as_inputs_are_no_inputs(file: Path) -> None:
    model = small_model()
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 3]))
    file.write_bytes(model.SerializeToString())
    assert inspect_model(file).inputs == (PIXELS,)


class Bomb:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_named_and_not_opened(tmp_path: Path, file: Path, protocol: int) -> None:
    trace = tmp_path / "opened"
    assert refusal(file, pickle.dumps(Bomb(trace), protocol=protocol)) == "model_is_pickle"
    assert not trace.exists()


def test_a_torch_archive_is_named_a_pickle(tmp_path: Path, file: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as torch:
        torch.writestr("model/data.pkl", pickle.dumps(Bomb(tmp_path / "opened")))
        torch.writestr("model/version", "3")
    assert refusal(file, archive.getvalue()) == "model_is_pickle"
    assert not (tmp_path / "opened").exists()


def test_a_long_pickle_of_an_old_protocol_is_told_from_its_head(file: Path) -> None:
    assert refusal(file, pickle.dumps(list(range(500_000)), protocol=0)) == "model_is_pickle"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am a text",
        b'"just a string"',
        b"Binary junk \x00\xff\x80",
        b'{"format": "json"}',
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\x1c\x00\x00\x00TFL3" + bytes(100),
        b"GGUF\x03\x00\x00\x00",
        b"\x80\x07 no such pickle protocol",
        b"\xff" * 64,
        bytes(64),
        b"\x00",
    ],
)
def test_what_is_no_model_is_refused_as_such(file: Path, data: bytes) -> None:
    assert refusal(file, data) == "not_a_model"


def test_a_zip_without_a_pickle_is_no_model(file: Path) -> None:
    archive = io.BytesIO()
    np.savez(archive, weight=np.zeros(3))
    assert refusal(file, archive.getvalue()) == "not_a_model"


def boundaries(data: bytes) -> list[int]:
    """The lengths at which a top-level field of the model ends."""
    ends = []
    for length in range(1, len(data)):
        try:
            parsed = onnx.ModelProto.FromString(data[:length])
        except Exception:  # noqa: BLE001 - any refusal means that the field is truncated
            continue
        if parsed.ByteSize() == length:
            ends.append(length)
    return ends


def test_a_model_cut_anywhere_is_called_truncated(file: Path) -> None:
    model = small_model()
    del model.opset_import[1:]
    whole = model.SerializeToString()
    assert {refusal(file, whole[:length]) for length in range(1, len(whole))} == {"model_truncated"}


def test_an_exported_int8_model_cut_anywhere_is_called_truncated(file: Path) -> None:
    whole = (FOLDER / "digits" / "release-1" / "int8.onnx").read_bytes()
    lengths = range(1, len(whole), 7)
    assert {refusal(file, whole[:length]) for length in lengths} == {"model_truncated"}


def test_only_a_cut_that_takes_nothing_from_the_graph_is_accepted(file: Path) -> None:
    """The model has an unused second operator set and metadata after its graph.

    A protobuf that ends between two fields is valid, so these lengths give the same model.
    """
    model = small_model(producer_name="test")
    helper.set_model_props(model, {"author": "a", "licence": "b"})
    whole = model.SerializeToString()
    file.write_bytes(whole)
    facts = inspect_model(file)
    accepted = []
    for length in range(1, len(whole)):
        file.write_bytes(whole[:length])
        try:
            assert inspect_model(file) == facts
        except PublisherError as error:
            assert error.code == "model_truncated"  # noqa: PT017 - both results are checked
        else:
            accepted.append(length)
    graph_end = max(
        length
        for length in boundaries(whole)
        if not onnx.ModelProto.FromString(whole[:length]).opset_import
    )
    assert accepted == [length for length in boundaries(whole) if length > graph_end]
    assert len(accepted) == 3


def test_a_model_whose_function_was_cut_off_is_refused(file: Path) -> None:
    model = small_model()
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twice", "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))
    function = helper.make_function(
        "mine", "Twice", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    without = model.SerializeToString()
    model.functions.append(function)
    file.write_bytes(model.SerializeToString())
    assert inspect_model(file).inputs == (PIXELS,)
    assert model.SerializeToString().startswith(without)
    assert refusal(file, without) == "model_unsupported"


def test_weights_in_other_files_are_refused_wherever_they_hide(file: Path) -> None:
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    model = small_model()
    model.graph.initializer.append(outside)
    assert refusal(file, model.SerializeToString()) == "model_unsupported"

    model = small_model()
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["x"], value=outside)], "b", [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    model.graph.node.append(
        helper.make_node("If", ["pixels"], ["y"], then_branch=branch, else_branch=branch)
    )
    assert refusal(file, model.SerializeToString()) == "model_unsupported"


def test_a_datatype_that_no_protocol_carries_is_refused(file: Path) -> None:
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.COMPLEX64
    assert refusal(file, model.SerializeToString()) == "model_unsupported"


def test_an_operator_that_no_runtime_knows_is_refused(file: Path) -> None:
    for domain in ("", "acme.secret"):
        model = small_model()
        model.graph.node[0].op_type, model.graph.node[0].domain = "Frobnicate", domain
        model.opset_import.append(helper.make_opsetid("acme.secret", 1))
        assert refusal(file, model.SerializeToString()) == "model_unsupported"


def test_a_graph_that_computes_nothing_it_promises_is_refused(file: Path) -> None:
    model = small_model()
    model.graph.node[0].input[0] = "elsewhere"
    assert refusal(file, model.SerializeToString()) == "not_a_model"


@pytest.mark.parametrize("shape", [None, [], ["batch", 0], ["batch", -7]])
def test_an_input_without_a_usable_shape_is_refused(file: Path, shape: list[int] | None) -> None:
    model = small_model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape))
    assert refusal(file, model.SerializeToString()) == "model_unsupported"


def mutations(data: bytes, seed: int, count: int) -> list[bytes]:
    """Seeded damage: bytes flipped, and pieces removed, doubled or exchanged."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            at, to = sorted((draw.randrange(len(changed)), draw.randrange(len(changed))))
            match draw.randrange(4):
                case 0:
                    changed[at] = draw.randrange(256)
                case 1:
                    changed[at] ^= 1 << draw.randrange(8)
                case 2 if to - at < len(changed) - 8:
                    del changed[at:to]
                case _:
                    changed[at:at] = changed[at : min(to, at + 64)]
        made.append(bytes(changed))
    return made


def endings(file: Path, inspect: Callable[[Path], object], damaged: Iterable[bytes]) -> set[str]:
    """The result of reading each file. An error without a type is raised."""
    codes = set()
    for data in damaged:
        file.write_bytes(data)
        try:
            inspect(file)
            codes.add("accepted")
        except PublisherError as error:
            codes.add(error.code)
    return codes


def test_damage_only_ever_gives_a_typed_error_or_a_model(file: Path) -> None:
    damaged = mutations(small_model(producer_name="p" * 40).SerializeToString(), 1, 3_000)
    refusals = {"model_truncated", "not_a_model", "model_unsupported"}
    assert endings(file, inspect_model, damaged) == {"accepted", *refusals}


def test_damage_finds_an_error_of_the_checker_that_nobody_expected(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx.checker, "ValidationError", KeyError)
    with pytest.raises(onnx.checker.C.ValidationError):
        endings(file, inspect_model, mutations(small_model().SerializeToString(), 1, 3_000))


def golden(**changes: np.ndarray | None) -> bytes:
    arrays = {
        "input.pixels": np.zeros((5, 4), np.float32),
        "output.scores": np.zeros((5, 3), np.float32),
        "label": np.arange(5),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    out = io.BytesIO()
    np.savez_compressed(out, **{k: v for k, v in arrays.items() if v is not None})
    return out.getvalue()


def golden_refusal(file: Path, data: bytes) -> str | None:
    file.write_bytes(data)
    with pytest.raises(PublisherError) as caught:
        read_golden(file, (PIXELS,), (SCORES,))
    assert caught.value.code == "golden_mismatch"
    return caught.value.field


def test_a_golden_set_that_fits_gives_its_cases(file: Path) -> None:
    pixels = np.asfortranarray(np.random.default_rng(0).random((5, 4), np.float32))
    file.write_bytes(golden(input__pixels=pixels))
    assert read_golden(file, (PIXELS,), (SCORES,)).cases == 5
    read = read_golden(file, (PIXELS,), (SCORES,))
    assert np.array_equal(read.inputs["pixels"], pixels)
    assert read.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input__pixels": None}, "input.pixels"),
        ({"output__scores": None}, "output.scores"),
        ({"label": None}, "label"),
        ({"input__pixels": np.zeros((5, 8), np.float32)}, "input.pixels"),
        ({"input__pixels": np.zeros((5, 2, 2), np.float32)}, "input.pixels"),
        ({"input__pixels": np.zeros((4, 4), np.float32)}, "input.pixels"),
        ({"input__pixels": np.zeros((5, 4), np.float64)}, "input.pixels"),
        ({"output__scores": np.zeros((5, 10), np.float32)}, "output.scores"),
        ({"label": np.zeros((5, 1), np.int64)}, "label"),
        ({"label": np.zeros(5, np.int32)}, "label"),
        ({"label": np.zeros(0, np.int64)}, "label"),
        ({"input__other": np.zeros((5, 4), np.float32)}, "input.other"),
    ],
)
def test_a_golden_set_that_does_not_fit_names_the_array(
    file: Path, change: dict[str, np.ndarray | None], field: str
) -> None:
    assert golden_refusal(file, golden(**change)) == field


def test_a_golden_set_that_holds_objects_is_refused_unopened(tmp_path: Path, file: Path) -> None:
    out = io.BytesIO()
    np.savez(out, label=np.array([Bomb(tmp_path / "opened")], dtype=object))
    assert golden_refusal(file, out.getvalue()) == "label"
    assert not (tmp_path / "opened").exists()


def npz(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def npy(shape: str, body: bytes) -> bytes:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (%s), }\n" % shape.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def test_a_bomb_that_declares_its_size_is_not_unpacked(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = npz({"label.npy": bytes(2 << 20)})
    file.write_bytes(bomb)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(PublisherError, match="unpacks to more than 1048576 bytes"):
        golden_set.read_npz(file, unpacked_bytes=1 << 20)


def test_a_bomb_that_lies_about_its_size_is_unpacked_no_further(file: Path) -> None:
    body = bytes(64 << 20)
    packed = bytearray(npz({"label.npy": npy("5,", bytes(40)) + body}))
    entry = packed.rindex(b"PK\x01\x02")
    struct.pack_into("<I", packed, entry + 24, 200)
    most = 0
    inflate = zlib.decompressobj

    class Watched:
        def __init__(self, *args: int) -> None:
            self.inner = inflate(*args)

        def decompress(self, data: bytes, most_bytes: int = 0) -> bytes:
            nonlocal most
            got = self.inner.decompress(data, most_bytes)
            most = max(most, len(got))
            return got

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Watched)
        assert golden_refusal(file, bytes(packed)) in ("label", None)
    assert 0 < most <= 1 << 16


@pytest.mark.parametrize("shape", ["1000000000000,", "5, 5,", "", "-1,", "9" * 30, "1" * 4000])
def test_a_header_that_lies_about_its_shape_is_refused(file: Path, shape: str) -> None:
    assert golden_refusal(file, npz({"label.npy": npy(shape, bytes(40))})) == "label"


def test_more_entries_than_a_model_has_tensors_are_refused(file: Path) -> None:
    data = npz({f"{number}.npy": b"" for number in range(golden_set.GOLDEN_ARRAYS + 1)})
    assert golden_refusal(file, data) is None


def test_a_golden_set_cut_anywhere_is_refused(file: Path) -> None:
    whole = golden()
    assert {golden_refusal(file, whole[:length]) for length in range(len(whole))} == {None}


def inspect_small_golden(file: Path) -> int:
    return read_golden(file, (PIXELS,), (SCORES,)).cases


def test_damage_only_ever_gives_a_typed_error_or_a_golden_set(file: Path) -> None:
    found = endings(file, inspect_small_golden, mutations(golden(), 7, 3_000))
    assert found == {"accepted", "golden_mismatch"}


def test_damage_finds_a_fault_of_the_archive_that_nobody_expected(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnexpectedError(Exception):
        """Raised by ``zipfile`` instead of its ``BadZipFile``."""

    monkeypatch.setattr(zipfile, "BadZipFile", UnexpectedError)
    with pytest.raises(UnexpectedError):
        endings(file, inspect_small_golden, mutations(golden(), 7, 3_000))
