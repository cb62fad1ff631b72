"""BF16 in every protocol, in the runtime, in golden sets and in the telemetry, bit by bit."""

import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient import http as triton

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.optimize.samples import cast
from edgefleet.protocol.comparisons import Elementwise, Exact
from edgefleet.protocol.release import Golden, TensorSpec, Variant
from edgefleet.protocol.serving import ProveRequest, ServedModel, ServedRelease
from edgefleet.serving.bf16 import BF16, from_numbers, rounded, widened
from edgefleet.serving.classification import classified
from edgefleet.serving.golden_set import first_cases, read_golden
from edgefleet.serving.loading import load_model
from edgefleet.serving.long_json import decode_numbers, encoded
from edgefleet.serving.model_file import inspect_model
from edgefleet.serving.prove import prove
from edgefleet.serving.stats import Stats, top_scores
from support.serving_process import ServingProcess, serving
from support.tiny_models import artifact_of, save, variant_of

INFER = "/v2/models/halves/infer"
ODD = [0x7FC0, 0x7F80, 0xFF80, 0x0001, 0x807F, 0x8000, 0x3F81, 0xFF7F]
"""A NaN, both infinities, subnormals, a negative zero, an odd number, the lowest number."""


def bits(array: NDArray[Any]) -> list[int]:
    return array.view(np.uint16).ravel().tolist()  # type: ignore[no-any-return] # numbers


def of_bits(*numbers: int) -> NDArray[Any]:
    return np.array(numbers, np.uint16).view(BF16)


# The values.


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1 + 2**-8, 0x3F80),  # a tie goes to the even one, below
        (1 + 3 * 2**-8, 0x3F82),  # and above
        (1 + 2**-8 + 2**-40, 0x3F81),  # no tie, but FP32 would round it to one
        (1 + 3 * 2**-8 - 2**-40, 0x3F81),
        (-0.0, 0x8000),
        (2.0**-133, 0x0001),  # the least subnormal
        (2.0**-134, 0x0000),
        (2.0**-134 * (1 + 2**-30), 0x0001),
        (3 * 2.0**-134, 0x0002),
        (1e-60, 0x0000),
        (float.fromhex("0x1.fep127"), 0x7F7F),  # the largest
        (float.fromhex("0x1.feffffffp127"), 0x7F7F),
        (float.fromhex("0x1.ffp127"), 0x7F80),
        (-1e300, 0xFF80),
        (float("-inf"), 0xFF80),
        (float("nan"), 0x7FC0),
    ],
)
def test_a_number_is_rounded_once_to_the_nearest_even(value: float, wanted: int) -> None:
    assert bits(rounded([value])) == [wanted]


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
def test_no_other_bf16_is_nearer(value: float) -> None:
    (made,) = bits(rounded([value]))
    distance = {}
    for near in (made - 1, made, made + 1):
        if near >= 0 and near & 0x7FFF < 0x7F80:
            distance[near] = abs(Fraction(float(widened(of_bits(near))[0])) - Fraction(value))
    if made & 0x7FFF == 0x7F80:
        assert abs(value) >= float.fromhex("0x1.ffp127")
        return
    nearest = min(distance.values())
    assert distance[made] == nearest
    assert list(distance.values()).count(nearest) == 1 or made % 2 == 0


def test_every_bf16_is_exact_as_fp32_and_comes_back() -> None:
    every = of_bits(*range(1 << 16))
    wide = widened(every)
    np.testing.assert_array_equal(wide, every.view(ml_dtypes.bfloat16).astype(np.float32))
    numbers = ~np.isnan(wide)
    assert bits(rounded(wide)[numbers]) == bits(every[numbers])
    assert np.isnan(widened(rounded(wide)[~numbers])).all()


def test_a_finite_number_that_is_too_large_is_an_error_and_an_infinity_is_none() -> None:
    with pytest.raises(OverflowError):
        from_numbers([1.0, 3.4e38])
    assert bits(from_numbers([float("inf"), float("nan")])) == [0x7F80, 0x7FC0]


# The runtime, and the server in both isolations.


def model_of(folder: Path, shape: tuple[int, ...] = (-1, 8)) -> tuple[Path, Variant]:
    """``x`` BF16 -> ``same``, equal, and ``twice``, its double, both BF16, and ``wide``, FP32."""
    path = folder / "halves.onnx"
    sizes = ["b" if size == -1 else size for size in shape]
    kinds = {"same": TensorProto.BFLOAT16, "twice": TensorProto.BFLOAT16, "wide": TensorProto.FLOAT}
    save(
        path,
        [
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "wide"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["twice"], to=TensorProto.BFLOAT16),
        ],
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, sizes)],
        [helper.make_tensor_value_info(name, kind, sizes) for name, kind in kinds.items()],
        [],
    )
    outputs = tuple(
        TensorSpec(name=name, datatype="FP32" if name == "wide" else "BF16", shape=shape)
        for name in kinds
    )
    return path, variant_of(path, (TensorSpec(name="x", datatype="BF16", shape=shape),), outputs)


@pytest.mark.parametrize("shape", [(-1, 8), (1, 8)])
def test_the_runtime_gives_the_bits_that_the_model_makes(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path, variant = model_of(tmp_path, shape)
    facts = inspect_model(path)
    assert (facts.inputs, facts.outputs) == (variant.inputs, variant.outputs)
    model = load_model(path, variant).model
    first = model.run({"x": of_bits(*ODD).reshape(1, 8)}, ["same", "wide", "twice"])
    second = model.run({"x": rounded([[1, 2, 3, 4, 5, 6, 7, 8]])}, ["twice", "same"])
    assert bits(first[0]) == ODD, "a later run does not write to it"
    np.testing.assert_array_equal(first[1][0], widened(of_bits(*ODD)))
    assert bits(first[2])[1:] == [0x7F80, 0xFF80, 0x0002, 0x80FE, 0x8000, 0x4001, 0xFF80]
    assert widened(second[0]).tolist() == [[2, 4, 6, 8, 10, 12, 14, 16]]
    inputs = {"x": np.empty((1, 8), BF16)}
    outputs = {"twice": np.empty((1, 8), BF16), "wide": np.empty((1, 8), np.float32)}
    run = model.bind(inputs, outputs)
    for number in (3, 5):
        inputs["x"][...] = rounded(np.full((1, 8), number))
        run()
        assert widened(outputs["twice"]).tolist() == [[2 * number] * 8]
        assert outputs["wide"].tolist() == [[number] * 8]


def test_text_beside_bf16_is_refused_at_load(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    kinds = {"t": (TensorProto.STRING, "BYTES"), "x": (TensorProto.BFLOAT16, "BF16")}
    save(
        path,
        [helper.make_node("Identity", [name], [f"o{name}"]) for name in kinds],
        [helper.make_tensor_value_info(name, kind, ["b", 1]) for name, (kind, _) in kinds.items()],
        [helper.make_tensor_value_info(f"o{n}", kind, ["b", 1]) for n, (kind, _) in kinds.items()],
        [],
    )
    inputs, outputs = (
        tuple(
            TensorSpec(name=f"{head}{name}", datatype=datatype, shape=(-1, 1))  # type: ignore[arg-type] # datatypes
            for name, (_, datatype) in kinds.items()
        )
        for head in ("", "o")
    )
    with pytest.raises(EdgefleetError, match=r"model_unsupported \(variant.inputs\).*Input t is"):
        load_model(path, variant_of(path, inputs, outputs))


@pytest.fixture(scope="module", params=["shared", "process"])
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    folder = tmp_path_factory.mktemp("halves")
    path, variant = model_of(folder)
    release = ServedRelease(release="1", variant=variant, quality=None, artifact_path=str(path))
    with serving(folder) as running:
        running.activate(ServedModel(model="halves", isolation=request.param, confirmed=release))
        yield running


def ask(process: ServingProcess, data: object, output: str = "same", **more: object) -> Answer:
    asked = {
        "inputs": [{"name": "x", "datatype": "BF16", "shape": [1, 8], "data": data}],
        "outputs": [{"name": output, **more}],
    }
    return HttpLink(process.url).request("POST", INFER, body=json.dumps(asked).encode())


def outputs_of(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["outputs"][0]


def test_the_client_gets_the_bits_that_it_sent(process: ServingProcess) -> None:
    with triton.InferenceServerClient(process.address) as client:
        assert client.get_model_metadata("halves")["inputs"][0]["datatype"] == "BF16"
        assert client.get_model_config("halves")["input"][0]["data_type"] == "TYPE_BF16"
        for turn in range(3):  # a worker binds the memory of a request that comes again
            sent = np.array([ODD[turn:] + ODD[:turn]], np.uint16).view(ml_dtypes.bfloat16)
            tensor = triton.InferInput("x", [1, 8], "BF16")
            tensor.set_data_from_numpy(sent)
            wanted = [triton.InferRequestedOutput("same"), triton.InferRequestedOutput("wide")]
            got = client.infer("halves", [tensor], outputs=wanted)
            assert bits(got.as_numpy("same")) == bits(sent)
            np.testing.assert_array_equal(got.as_numpy("wide"), sent.astype(np.float32))


def test_numbers_of_json_are_rounded_and_come_back_exact(process: ServingProcess) -> None:
    given_ = [1 + 2**-8 + 2**-40, 1 + 2**-8, 0.1, -3e38, 2.0**-133, 7, 0, -1.5]
    exact = widened(rounded(given_)).tolist()
    assert exact[:3] == [1.0078125, 1.0, 0.10009765625]
    for data in (given_, [given_]):
        got = outputs_of(ask(process, data))
        assert (got["datatype"], got["shape"], got["data"]) == ("BF16", [1, 8], exact)
    got = outputs_of(
        ask(process, [1, 5, 2, 3, 0, 0, 0, 0], "twice", parameters={"classification": 2})
    )
    assert (got["datatype"], got["data"]) == ("BYTES", ["10.000000:1", "6.000000:3"])


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 3.4e38], 400, "x: data is not a BF16 tensor: a number is too large."),
        ([0, 0, 0, 0, 0, 0, 0, "1"], 400, "x: data is not a BF16 tensor"),
        ([0] * 7, 400, "x: data does not have shape [1, 8]."),
        ([3e38] * 8, 500, "The model failed: output twice has a number that is not finite."),
    ],
)  # fmt: skip
def test_json_that_is_no_bf16_is_refused_by_name(
    process: ServingProcess, data: object, status: int, error: str
) -> None:
    answer = ask(process, data, "twice")
    assert answer.status == status
    assert json.loads(answer.body)["error"].startswith(error)


def test_binary_tensors_have_two_bytes_for_each_element(process: ServingProcess) -> None:
    def send(size_bytes: int, *, raw: bool = False) -> Answer:
        tensor = {"name": "x", "datatype": "BF16", "shape": [1, 8]}
        tensor["parameters"] = {"binary_data_size": size_bytes}
        head = b"" if raw else json.dumps({"inputs": [tensor]}).encode()
        pad = b"" if raw or len(head) % 2 else b" "  # the tensor begins at an odd byte
        body = head + pad + struct.pack("<8H", *ODD)[:size_bytes] + bytes(max(0, size_bytes - 16))
        return HttpLink(process.url).request(
            "POST", INFER, body=body,
            headers={"Inference-Header-Content-Length": str(len(head + pad))},
        )  # fmt: skip

    raw = send(16, raw=True)
    assert (raw.status, struct.unpack("<8H", raw.body[-64:-48])) == (200, tuple(ODD))
    answer = send(16)
    assert json.loads(answer.body)["error"] == (
        "The model failed: output same has a number that is not finite."
    ), "it was read, and has no JSON"
    for size_bytes in (15, 32):
        refused = send(size_bytes)
        assert refused.status == 400
        assert json.loads(refused.body)["error"] == (
            f"x: BF16 [1, 8] has 16 bytes, not {size_bytes}."
        )
    assert json.loads(send(12, raw=True).body)["error"].startswith("x: BF16 [1, 8] has 16 bytes")


# Long JSON, telemetry, and golden sets.


def test_long_json_means_what_short_json_means() -> None:
    values = np.random.default_rng(3).normal(0, 1e5, 20_000)
    decoder = msgspec.json.Decoder(list[float])
    read = decode_numbers(json.dumps(values.tolist()).encode(), BF16, decoder, (20_000,))
    assert read is not None
    assert bits(read) == bits(rounded(values))
    written = json.loads(encoded({"id": "1"}, [({"name": "y"}, read)]))
    assert written["outputs"][0]["data"] == widened(read).tolist()


def test_telemetry_counts_what_it_counts_of_fp32() -> None:
    rng = np.random.default_rng(5)
    for shape, sizes in (((1, 9), (1,)), ((4, 9), (1, 3)), ((1, 90_000), (1,))):
        halves = rounded(rng.normal(3, 1, shape))
        counted = []
        for first in (halves, widened(halves)):
            stats = Stats()
            stats.succeeded_all([5] * len(sizes), first, sizes)
            counted.append(stats.inputs)
        assert counted[0] == counted[1]
        assert sum(counted[0]) == len(sizes)
    scores = rounded([[0.25, 0.5, 0.25], [0.75, 0.125, 0.125]])
    assert top_scores(scores, "probabilities") == ([0.5, 0.75], [1, 0])
    assert classified("y", scores, 1).tolist() == [["0.500000:1"], ["0.750000:0"]]


def test_a_golden_set_has_fp32_whose_inputs_are_exact(tmp_path: Path) -> None:
    path, variant = model_of(tmp_path)
    given_ = widened(rounded(np.random.default_rng(1).normal(0, 1, (6, 8))))

    def proven(given: NDArray[Any], comparison: Elementwise | Exact) -> Any:
        arrays = {"input.x": given, "output.same": given, "output.twice": 2 * given_}
        np.savez(tmp_path / "golden.npz", allow_pickle=False, **arrays)
        golden = Golden(
            artifact=artifact_of(tmp_path / "golden.npz"), cases=6, min_accuracy=0.0,
            min_agreement=1.0, comparison=comparison,
        )  # fmt: skip
        return prove(
            ProveRequest(
                variant=variant, golden=golden, artifact_path=str(path),
                golden_path=str(tmp_path / "golden.npz"),
            )
        )  # fmt: skip

    close = Elementwise(outputs=("same", "twice"), absolute=0.0, relative=0.001)
    for comparison in (close, Exact(outputs=("same", "twice"))):
        assert proven(given_, comparison).passed
    cases = read_golden(tmp_path / "golden.npz", variant.inputs, variant.outputs, close)
    assert (cases.inputs["x"].dtype, cases.outputs["same"].dtype) == (BF16, np.float32)
    assert bits(first_cases(tmp_path / "golden.npz", variant.inputs, 2)["x"]) == bits(
        rounded(given_[:2])
    )
    refused = proven(given_ + np.float32(2**-20), close)
    assert (refused.passed, refused.detail) == (
        False,
        "golden_mismatch: A value is not exact in BF16: round the inputs before saving.",
    )


def test_samples_of_a_publisher_are_rounded() -> None:
    spec = TensorSpec(name="x", datatype="BF16", shape=(-1, 3))
    made = cast(np.array([[1 + 2**-8 + 2**-40, 1 + 2**-8, 0.1]]), spec, "x")
    assert (made.dtype, made.tolist()) == (np.float32, [[1.0078125, 1.0, 0.10009765625]])
