"""References to the publisher's code: ``FILE.py:function`` or ``package.module:function``."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final, NamedTuple

_SUFFIX: Final = ".py"


class Reference(NamedTuple):
    """A function. ``folder`` is that of a file, from which its module is imported; else None."""

    folder: Path | None
    module: str
    function: str


def reference_of(text: str) -> Reference:
    """The parts of a reference. Empty parts are missing."""
    module, _, function = text.rpartition(":")
    if not module.endswith(_SUFFIX):
        return Reference(None, module, function)
    path = Path(module).absolute()
    return Reference(path.parent, path.stem, function)


def is_reference(text: str) -> bool:
    """Whether the text names a function, and no file. Addresses such as models:/NAME do not."""
    _, module, function = reference_of(text)
    is_name = function.replace(".", "_").isidentifier()
    return bool(module) and is_name and not Path(text).exists()


def source_of(text: str) -> bytes:
    """The source file of the function, found without importing it. Empty: none."""
    reference = reference_of(text)
    places: Sequence[str] | None = (
        [str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
        if reference.folder is None
        else [str(reference.folder)]
    )
    found = None
    for part in reference.module.split("."):
        if not part or places is None:
            return b""
        found = PathFinder.find_spec(part, places)
        if found is None:
            return b""
        places = found.submodule_search_locations
    return Path(found.origin).read_bytes() if found and found.origin else b""
