"""``edgefleet infer`` and ``bench`` against a real serving process."""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgefleet.cli.exits import Exit
from support.command_line import CommandLine, play
from support.golden import hold
from support.named_classes import with_names
from support.serving_process import serving
from support.tiny_models import PIXELS, TinyModel, classifier

SCRIPTS = Path(__file__).parent / "scripts" / "serving"
ONES = np.ones((1, PIXELS), np.float32)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TinyModel]]:
    """The address of a process that serves digits, and the model."""
    folder = tmp_path_factory.mktemp("serving")
    model = classifier(folder / "digits.onnx")
    with serving(folder) as process:
        process.activate(model.activate())
        yield process.address, model


@pytest.fixture
def device(edgefleet: CommandLine, digits: tuple[str, TinyModel]) -> CommandLine:
    address, _ = digits
    variables = {"EDGEFLEET_INFER_ADDRESS": address, "EDGEFLEET_BENCH_ADDRESS": address}
    return CommandLine(edgefleet.home, variables)


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG without filters."""
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    made = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for name, chunk in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        made += struct.pack(">I", len(chunk)) + name + chunk
        made += struct.pack(">I", zlib.crc32(name + chunk))
    return made


def write_files() -> None:
    """The files that the scripts name, in the working folder."""
    ones = ONES.tolist()
    Path("ones.json").write_text(json.dumps(ones))
    Path("short.json").write_text("[1, 2, 3]")
    Path("text.json").write_text('["dark"]')
    Path("own.txt").write_text("null\neins\n")
    Path("names.txt").write_text("\n".join(f"digit-{one}" for one in range(10)))
    entry = {"name": "pixels", "datatype": "FP32", "shape": [1, PIXELS], "data": ones[0]}
    Path("request.json").write_text(json.dumps({"inputs": [entry]}))
    np.save("two.npy", np.zeros((2, PIXELS)))
    np.savez("named.npz", pixels=ONES)
    picture = png(np.full((8, 8), 255))
    Path("digit.png").write_bytes(picture)
    Path("cut.png").write_bytes(picture[:50])
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")


def without_chance(played: str, address: str) -> str:
    """Without the port, the ids that the server makes, and the time."""
    played = played.replace(address, "DEVICE")
    return re.sub(r"in [0-9.]+ ms", "in N ms", played)


@pytest.mark.parametrize("name", ["infer", "bench"])
def test_a_script_goes_as_it_is_written(
    name: str, device: CommandLine, digits: tuple[str, TinyModel]
) -> None:
    write_files()
    file = SCRIPTS / f"{name}.txt"
    written = file.read_text()
    played = without_chance(play(written, device), digits[0])
    assert played.count("$ edgefleet ") == written.count("$ edgefleet ") > 5
    hold(file, played)


@pytest.mark.parametrize("file", ["ones.json", "named.npz", "request.json", "digit.png"])
@pytest.mark.parametrize("form", ["--binary", "--as-json"])
def test_each_form_of_input_gets_the_answer_of_the_model(
    file: str, form: str, device: CommandLine, digits: tuple[str, TinyModel]
) -> None:
    write_files()
    answer = device("infer", "digits", file, form, "--id", "a-7", "--json").json
    assert (answer["model"], answer["release"], answer["id"]) == ("digits", "1", "a-7")
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [1, 10])
    assert output["data"] == pytest.approx(digits[1].probabilities(ONES)[0].tolist(), abs=1e-5)


def test_the_classes_have_the_names_that_the_device_gives(
    edgefleet: CommandLine, tmp_path: Path
) -> None:
    write_files()
    model = classifier(tmp_path / "digits.onnx")
    with serving(tmp_path) as process:
        process.activate(with_names(model, tmp_path))
        device = CommandLine(edgefleet.home, {"EDGEFLEET_INFER_ADDRESS": process.address})
        assert "\n  digit-1: 0.9943\n" in device("infer", "digits", "ones.json", "--top", "1").out
        given = device("infer", "digits", "ones.json", "--top", "1", "--classes", "own.txt")
        assert "\n  eins: 0.9943\n" in given.out


def test_standard_input_is_read(device: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgefleet.cli.infer import inputs  # noqa: PLC0415

    read: list[str] = []

    def stdin(place: str) -> bytes:
        read.append(place)
        return json.dumps({"pixels": ONES.tolist()}).encode()

    monkeypatch.setattr(inputs, "_bytes", stdin)
    assert device("infer", "digits", "-").exit == Exit.DONE
    assert read == ["-"]


def test_a_bench_counts_what_it_sent(device: CommandLine) -> None:
    args = ("--requests", "40", "--warm-up", "0s", "--connections", "3", "--batch", "2")
    answer = device("bench", "digits", *args, "--json")
    assert answer.exit == Exit.DONE
    report = answer.json
    assert (report["requests"], report["succeeded"], report["errors"]) == (40, 40, {})
    assert (report["mode"], report["connections"], report["release"]) == ("closed", 3, "1")
    assert sum(bar["count"] for bar in report["histogram"]) == 40
    latency = report["latency_us"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]


def test_a_bench_at_a_rate_sends_what_is_due(device: CommandLine) -> None:
    args = ("--rate", "100", "--requests", "20", "--warm-up", "0s", "--spacing", "even")
    report = device("bench", "digits", *args, "--json").json
    assert (report["mode"], report["rate"], report["connections"]) == ("open", 100.0, 64)
    assert (report["requests"], report["not_sent"]) == (20, 0)
    assert report["elapsed_s"] >= 0.19  # the last of 20 requests is due after 19 intervals
