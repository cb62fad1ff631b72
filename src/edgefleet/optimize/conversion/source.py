"""The TFLite source of an optimisation, converted from the ONNX source where a profile wants it."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from msgspec import to_builtins

from edgefleet.base.errors import EdgefleetError
from edgefleet.optimize.cache import Cache, key_of
from edgefleet.optimize.child import free_limits, run_child
from edgefleet.optimize.conversion.process import ConvertAnswer, ConvertRequest
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel
from edgefleet.optimize.techniques import measured_runtime

_MODULE: Final = "edgefleet.optimize.conversion.process"
_REVISION: Final = "1"  # of the conversion: part of the key of the cache
_TOOLS: Final = ("onnx", "onnxslim", "ai-edge-litert")
_FILE: Final = "model.tflite"


def with_tflite(
    sources: Mapping[str, SourceModel],
    profiles: Sequence[Profile],
    cache: Cache,
    calibration_folder: Path,
    progress: Callable[[str], None],
) -> Mapping[str, SourceModel]:
    """The sources by runtime, with a TFLite file if a profile prefers one and there is none.

    Without a conversion ``progress`` says why, and a profile that has another runtime uses that.
    Raises the errors of ``convert`` if there is a profile that has no other.
    """
    wants = [one for one in profiles if measured_runtime(one.runtime) == "litert"]
    if "litert" in sources or "onnx" not in sources or not wants:
        return sources
    source = sources["onnx"]

    def fill(folder: Path) -> None:
        request = ConvertRequest(
            model=str(source.path.absolute()),
            calibration=str(calibration_folder.absolute()),
            made=str((folder / _FILE).absolute()),
        )
        run_child(_MODULE, request, ConvertAnswer, free_limits(), what="The conversion to TFLite")

    key = key_of("converted", weights=source.sha256, tools=_versions(), revision=_REVISION)
    try:
        made = read_source(cache.entry(key, fill) / _FILE)
    except EdgefleetError as error:
        progress(error.message)
        if all("onnx" in map(measured_runtime, one.runtimes) for one in wants):
            return sources
        raise
    progress(f"{source.path.name} was converted to TFLite: {made.path.stat().st_size:,} bytes")
    parents = (source.sha256, *source.parents)
    facts = to_builtins(source.lineage)
    converted = SourceModel(made.path, made.facts, made.sha256, parents, facts)
    return {**sources, "litert": converted}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
