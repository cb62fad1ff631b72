"""Models of other tools as ONNX and TFLite files, through the cache.

The converter runs in a child process with limits, under a Python that has its packages. None of
them is a dependency of edgefleet.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import file_sha256
from edgefleet.optimize.cache import Cache, key_of
from edgefleet.optimize.child import free_limits, run_child
from edgefleet.optimize.inputs.convert_process import Converted, ConvertRequest
from edgefleet.optimize.inputs.keras_file import check_keras_file
from edgefleet.optimize.inputs.model_format import Format
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel
from edgefleet.protocol.device import Digest
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.limits import MODEL_BYTES

_MODULE: Final = "edgefleet.optimize.inputs.convert_process"
_ANSWER: Final = "converted.json"
_FILES: Final = 1_000  # of a SavedModel


@dataclass(frozen=True, slots=True)
class Converter:
    """A Python with the packages of converters, and the cache of what they made."""

    cache: Cache
    python: Path = Path(sys.executable)

    def sources(self, kind: Format, path: Path) -> Sequence[SourceModel]:
        """The model as ONNX, and as TFLite where its tool makes one.

        Their parent is the digest of the given file. Raises PublisherError ``model_unsupported``,
        ``not_a_model``, ``step_failed`` if the converter crashes; DeviceError ``runtime_missing``
        if its packages are missing.
        """
        if kind == "keras":
            check_keras_file(path)
        digest = _digest(path)
        versions = self._run(ConvertRequest(format=kind)).versions
        key = key_of("converted", model=digest, format=kind, tools=versions)

        def fill(folder: Path) -> None:
            request = ConvertRequest(format=kind, path=str(path.absolute()), made=str(folder))
            answer = self._run(request)
            for unneeded in set(_plain_files(folder)) - {folder / one for one in answer.files}:
                unneeded.unlink()
            (folder / _ANSWER).write_bytes(encode(answer))

        folder = self.cache.entry(key, fill)
        answer = decode((folder / _ANSWER).read_bytes(), Converted)
        facts = {"format": kind, "converted_by": answer.versions, **answer.facts}
        return [
            replace(read_source(folder / file), parents=(digest,), lineage=facts)
            for file in answer.files
        ]

    def _run(self, request: ConvertRequest) -> Converted:
        what = f"The converter for {request.format}"
        return run_child(
            _MODULE, request, Converted, free_limits(), what=what, python=self.python
        )  # fmt: skip


def _digest(path: Path) -> Digest:
    """Of a file, or of all names and files of a folder.

    Raises PublisherError ``model_unsupported`` for links and for more than 2 GiB.
    """
    if path.is_file():
        if path.stat().st_size > MODEL_BYTES:
            raise _too_large(path)
        return file_sha256(path)
    whole, total = sha256(), 0
    for one in _plain_files(path):
        total += one.stat().st_size
        if total > MODEL_BYTES:
            raise _too_large(path)
        whole.update(f"{one.relative_to(path)}\0{file_sha256(one)}\n".encode())
    return whole.hexdigest()


def _plain_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or (path.is_file() and path.stat().st_nlink != 1):
            raise PublisherError(
                "model_unsupported",
                f"{path.relative_to(folder)} in {folder.name} is a link, which may lead out of the "
                "folder.",
                field="model",
                hint="Copy the folder with its files: cp -rL.",
            )
        if path.is_file():
            found.append(path)
    if len(found) > _FILES:
        raise PublisherError(
            "model_unsupported",
            f"{folder.name} has {len(found)} files; {_FILES} are allowed.",
            field="model",
            hint="Name the folder of the model alone.",
        )
    return found


def _too_large(path: Path) -> PublisherError:
    return PublisherError(
        "model_unsupported",
        f"{path.name} has more than {MODEL_BYTES:,} bytes.",
        field="model",
        hint="Use a smaller model: one file may have 2 GiB.",
    )
