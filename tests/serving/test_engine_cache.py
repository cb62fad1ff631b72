"""The folder of TensorRT's engines. No GPU and no TensorRT were here: what ONNX Runtime is told."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from edgefleet.protocol.release import Artifact, Precision, Variant
from edgefleet.protocol.runtimes import ENGINES_VARIABLE
from edgefleet.serving import engine_cache
from edgefleet.serving.checked_file import checked
from edgefleet.serving.engine_cache import KEPT, engine_name, gpu_name, provider_options
from edgefleet.serving.onnx_runtime import TensorRtRuntime

DIGEST = "ab" * 32


def variant(precision: Precision = "fp16", digest: str = DIGEST) -> Variant:
    return Variant(
        profile="jetson_nano", runtime="tensorrt", precision=precision,
        artifact=Artifact(sha256=digest, size_bytes=1), inputs=(), outputs=(), max_batch=4,
        memory_limit_mib=3072,
    )  # fmt: skip


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device with TensorRT 10.9.0 and an Orin, and the folder of engines."""
    monkeypatch.setenv(ENGINES_VARIABLE, str(tmp_path / "engines"))
    monkeypatch.setattr(engine_cache, "tensorrt_version", lambda: "10.9.0")
    monkeypatch.setattr(engine_cache, "gpu_name", lambda: "NVIDIA Orin/Nano")
    return tmp_path / "engines"


def test_an_engine_has_a_folder_for_its_file_versions_and_gpu(board: Path) -> None:
    folder = board / f"{DIGEST[:32]}-trt10.9.0-ort1.22.0-NVIDIA_Orin_Nano"
    assert provider_options(variant(), "1.22.0") == {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert provider_options(variant("fp32"), "1.22.0")["trt_fp16_enable"] == "0"


def test_each_part_of_the_key_changes_the_folder() -> None:
    key = (DIGEST, "10.9.0", "1.22.0", "Orin")
    others = (("cd" * 32, *key[1:]), (*key[:1], "10.8.0", *key[2:]),
              (*key[:2], "1.23.0", key[3]), (*key[:3], "Xavier"))  # fmt: skip
    assert len({engine_name(*one) for one in (key, *others)}) == 5


@pytest.mark.parametrize("missing", ["tensorrt_version", "gpu_name"])
def test_without_a_whole_key_nothing_is_kept(
    missing: str, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_cache, missing, lambda: "")
    assert provider_options(variant(), "1.22.0") == {"trt_fp16_enable": "1"}
    assert not board.exists()


def test_without_a_folder_of_the_agent_or_a_writable_one_nothing_is_kept(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.write_text("a file")
    assert provider_options(variant(), "1.22.0") == {"trt_fp16_enable": "1"}
    monkeypatch.delenv(ENGINES_VARIABLE)
    assert provider_options(variant(), "1.22.0") == {"trt_fp16_enable": "1"}


def test_the_least_recently_used_engines_are_removed(board: Path) -> None:
    digests = [f"{number:02x}" * 32 for number in range(KEPT + 2)]
    for age, digest in enumerate(digests):
        made = Path(provider_options(variant(digest=digest), "1.22.0")["trt_engine_cache_path"])
        (made / "a.engine").write_bytes(b"engine")
        os.utime(made, (1_000 + age, 1_000 + age))
    provider_options(variant(digest=digests[3]), "1.22.0")  # used again
    provider_options(variant(digest="ff" * 32), "1.22.0")
    left = {one.name[:2] for one in board.iterdir()}
    assert left == {"ff", "03", *(digest[:2] for digest in digests[-(KEPT - 2) :])}


def test_the_gpu_is_that_of_the_driver_else_the_board(tmp_path: Path) -> None:
    assert gpu_name(tmp_path) == ""
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert gpu_name(tmp_path) == "NVIDIA Jetson Orin Nano"
    for place, name in enumerate(("NVIDIA L4", "NVIDIA A2")):
        card = tmp_path / f"proc/driver/nvidia/gpus/0000:0{place}:00.0"
        card.mkdir(parents=True)
        (card / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 51\n")
    assert gpu_name(tmp_path) == "NVIDIA A2+NVIDIA L4"


def test_onnx_runtime_gets_the_folder_at_each_load(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    class Session:
        def __init__(self, path: str, options: object, providers: list[object]) -> None:
            given.append(providers)

        def get_providers(self) -> list[str]:
            return ["TensorrtExecutionProvider"]

        def get_inputs(self) -> list[object]:
            return []

        get_outputs = get_inputs

    fake = SimpleNamespace(
        __version__="1.22.0",
        get_available_providers=lambda: ["TensorrtExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        ExecutionMode=onnxruntime.ExecutionMode,
        InferenceSession=Session,
    )
    runtime = TensorRtRuntime()
    monkeypatch.setattr(TensorRtRuntime, "_ort", staticmethod(lambda: fake))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    wanted = variant(digest=hashlib.sha256(b"onnx").hexdigest())
    with checked(path, Artifact(sha256=wanted.artifact.sha256, size_bytes=4)) as file:
        runtime.load(file, wanted, threads=1)
    ((first, options), *others) = given[0]
    assert (first, others) == (
        "TensorrtExecutionProvider", ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )  # fmt: skip
    assert Path(options["trt_engine_cache_path"]).parent == board
