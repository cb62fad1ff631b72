"""Where TensorRT keeps the engines that it builds on this device.

An engine is built from the ONNX file when the model is loaded, which takes minutes on a small
board. The first load is the proof of the release at staging; serving then finds the engine. An
engine is right for one file, one version of TensorRT and of ONNX Runtime, and one GPU, so each of
these is a part of the folder's name: after an update of the board another folder is used, and the
engine is built again. Without a known version or GPU nothing is kept. ONNX Runtime itself checks
the compute capability only (onnxruntime.ai, "TensorRT Execution Provider", section on caches).

The agent names the folder of all engines (``ENGINES_VARIABLE``). The least recently used ones are
removed.
"""

import contextlib
import ctypes
import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from edgefleet.protocol.release import Variant
from edgefleet.protocol.runtimes import ENGINES_VARIABLE

KEPT: Final = 8  # models of one device, and one before each of a few
_LIBRARIES: Final = ("libnvinfer.so.10", "libnvinfer.so.8", "libnvinfer.so")
_OTHER: Final = re.compile(r"[^A-Za-z0-9.]+")
_NAME_BYTES: Final = 4_096


def provider_options(variant: Variant, ort_version: str) -> dict[str, str]:
    """The options of the TensorRT provider for ``variant``, with the folder of its engine."""
    options = {"trt_fp16_enable": "1" if variant.precision == "fp16" else "0"}
    root = os.environ.get(ENGINES_VARIABLE, "")
    name = engine_name(variant.artifact.sha256, tensorrt_version(), ort_version, gpu_name())
    if not (root and name):
        return options
    folder = _prepared(Path(root), name)
    if folder is None:
        return options
    return options | {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def engine_name(digest: str, tensorrt: str, onnxruntime: str, gpu: str) -> str:
    """The name of the folder of an engine. Empty if a part of the key is not known."""
    if not (tensorrt and onnxruntime and gpu):
        return ""
    parts = (digest[:32], f"trt{tensorrt}", f"ort{onnxruntime}", gpu)
    return "-".join(_OTHER.sub("_", part) for part in parts)


def tensorrt_version() -> str:
    """The version of TensorRT: of its Python package, else of its library. Empty without both."""
    try:
        return version("tensorrt")
    except PackageNotFoundError:  # on a Jetson the libraries are there without their package
        pass
    for name in _LIBRARIES:
        with contextlib.suppress(OSError, AttributeError):
            return str(ctypes.CDLL(name).getInferLibVersion())
    return ""


def gpu_name(root: Path = Path("/")) -> str:
    """The GPUs of this device, or the board with one inside. Empty if neither is known."""
    names = set()
    for file in root.glob("proc/driver/nvidia/gpus/*/information"):
        found = re.search(r"^Model:\s*(.+)$", _text(file), re.MULTILINE)
        names.add(found[1].strip() if found else "")
    names.discard("")
    return "+".join(sorted(names)) or _text(root / "proc/device-tree/model").strip("\0\n ")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as source:
            return source.read(_NAME_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _prepared(root: Path, name: str) -> Path | None:
    """The folder, made and marked as used. None if it cannot be made: nothing is kept then."""
    folder = root / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(folder)
        others = sorted(
            (one for one in root.iterdir() if one != folder), key=lambda one: one.stat().st_mtime
        )
    except OSError:
        return None
    for old in others[: max(0, len(others) + 1 - KEPT)]:
        shutil.rmtree(old, ignore_errors=True)
    return folder
