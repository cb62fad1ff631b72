"""Which version of ONNX Runtime can load a model file, by the versions of its format."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class FormatVersions(NamedTuple):
    """The versions of the format that a model file uses: of the file, and of its operator sets."""

    ir: int
    opset: int  # ai.onnx
    ml_opset: int = 0  # ai.onnx.ml


# Measured with tiny models on the released wheels: the newest versions that each one loads. A
# release without a row loads what the row before it loads.
LOADS: Final[Mapping[str, FormatVersions]] = {
    "1.19": FormatVersions(10, 21, 5),
    "1.22": FormatVersions(10, 22, 5),
    "1.23": FormatVersions(11, 23, 5),
    "1.24": FormatVersions(13, 25, 5),
    "1.25": FormatVersions(13, 26, 5),
}


def oldest_runtime(model: FormatVersions) -> str:
    """The oldest known version that loads ``model``. Empty if no known version does."""
    for version, newest in LOADS.items():
        if all(used <= known for used, known in zip(model, newest, strict=True)):
            return version
    return ""
