"""The runtimes that this device has, found without importing any.

A runtime is reported only if all its parts are there, so the hub offers no release that the device
cannot load. The parts of TensorRT and of the Edge TPU are libraries of the board.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edgefleet.protocol.device import RuntimeVersion
from edgefleet.protocol.runtimes import BUILT_IN, GROUP

RUNTIMES: Final = 8
"""As many runtimes a device reports."""

_TEXT: Final = 32
_LIBRARY_FOLDERS: Final = ("/lib", "/usr/lib", "/usr/local/lib", "/usr/lib64")
_CACHE: Final = Path("/etc/ld.so.cache")


def installed_runtimes() -> tuple[RuntimeVersion, ...]:
    """The runtimes with their versions, an empty version where a package does not say its own."""
    found = [*_onnx(), *_litert(), *_own()]
    return tuple(found[:RUNTIMES])


def has_library(name: str, *, folders: tuple[str, ...] = _LIBRARY_FOLDERS) -> bool:
    """Whether the loader of the system finds a shared library whose name begins with ``name``."""
    try:
        if name.encode() in _CACHE.read_bytes():
            return True
    except OSError:
        pass
    return any(next(Path(folder).glob(f"{name}*"), None) is not None for folder in folders)


def _onnx() -> Iterator[RuntimeVersion]:
    spec = find_spec("onnxruntime")
    if spec is None:
        return
    # The build of a board may be the module of another package.
    found = _version("onnxruntime", "onnxruntime-gpu", "onnxruntime-trt")
    yield RuntimeVersion(runtime="onnx", version=found)
    for folder in spec.submodule_search_locations or ():
        provider = Path(folder, "capi", "libonnxruntime_providers_tensorrt.so")
        if provider.exists() and (has_library("libnvinfer.so") or find_spec("tensorrt_libs")):
            yield RuntimeVersion(runtime="tensorrt", version=found)


def _litert() -> Iterator[RuntimeVersion]:
    if find_spec("ai_edge_litert") is None:
        return
    found = _version("ai-edge-litert")
    yield RuntimeVersion(runtime="litert", version=found)
    if has_library("libedgetpu.so.1"):
        yield RuntimeVersion(runtime="edgetpu", version=found)


def _own() -> Iterator[RuntimeVersion]:
    """The users' runtimes: an entry point each, with the version of its package."""
    names: set[str] = set(BUILT_IN)
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        if point.name not in names and len(point.name) <= _TEXT:
            names.add(point.name)
            found = "" if point.dist is None else point.dist.version
            yield RuntimeVersion(runtime=point.name, version=found[:_TEXT])


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return version(package)[:_TEXT]
        except PackageNotFoundError:
            continue
    return ""
