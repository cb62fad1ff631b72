"""Arrays in a folder, one .npy file each, for processes that read them batch by batch."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.samples import Array

_NAMES: Final = "names.json"
_PIECE_BYTES: Final = 1 << 24


def write_arrays(folder: Path, arrays: Arrays) -> None:
    """Write the arrays into a new folder. Text is written as ``<U``."""
    folder.mkdir(parents=True)
    for number, array in enumerate(arrays.values()):
        texts = array.astype(np.str_) if array.dtype.kind == "O" else array
        np.save(folder / f"{number}.npy", texts, allow_pickle=False)
    (folder / _NAMES).write_text(json.dumps(list(arrays)))


def read_arrays(folder: Path) -> dict[str, Array]:
    """The arrays, mapped from their files: what is not read takes no memory."""
    names = json.loads((folder / _NAMES).read_text())
    return {
        name: np.load(folder / f"{number}.npy", mmap_mode="r", allow_pickle=False)
        for number, name in enumerate(names)
    }


def arrays_digest(arrays: Arrays) -> str:
    """The SHA-256 of names, types, shapes and values."""
    digest = sha256()
    for name, array in sorted(arrays.items()):
        texts = array.astype(np.str_) if array.dtype.kind == "O" else array
        digest.update(json.dumps([name, texts.dtype.str, texts.shape]).encode())
        rows = max(1, _PIECE_BYTES // max(1, texts[:1].nbytes))
        for start in range(0, len(texts), rows):
            digest.update(np.ascontiguousarray(texts[start : start + rows]).view(np.uint8).data)
    return digest.hexdigest()
