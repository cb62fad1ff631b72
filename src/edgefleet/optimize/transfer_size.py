"""The bytes that a device would fetch: compressed, and as a difference from an earlier artifact.

The difference is an estimate of what block-wise updates send. Both files are cut into chunks of
about 4 KiB where their content says so (a rolling hash), so that inserted bytes move no other cut.
Chunks that the device has cost a reference; the others are compressed together.
"""

import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

_PIECE: Final = 1 << 22
_WINDOW: Final = 32  # bytes that decide about a cut: one bit of the hash for each
_MASK: Final = np.uint32(0xFFF00000)  # 12 bits of the hash are zero at a cut: 4 KiB on average
_LEAST: Final = 1 << 10
_MOST: Final = 1 << 16
_REFERENCE_BYTES: Final = 8
_GEAR: Final = np.random.default_rng(0).integers(0, 1 << 32, 256, dtype=np.uint32)


def compressed_size(path: Path) -> int:
    """The size in bytes after zlib, at its usual level."""
    packer, size = zlib.compressobj(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size += len(packer.compress(piece))
    return size + len(packer.flush())


def delta_size(path: Path, earlier: Path) -> int:
    """The estimated bytes to make ``path`` on a device that has ``earlier``."""
    known = {sha256(chunk).digest() for chunk in chunks(earlier.read_bytes())}
    packer, size = zlib.compressobj(), 0
    for chunk in chunks(path.read_bytes()):
        size += _REFERENCE_BYTES
        digest = sha256(chunk).digest()
        if digest not in known:
            known.add(digest)
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def chunks(data: bytes) -> Iterator[bytes]:
    """The content-defined chunks of ``data``, in order."""
    start = 0
    for cut in [*_cuts(data), len(data)]:
        while cut - start > _MOST:
            yield data[start : start + _MOST]
            start += _MOST
        if cut - start >= _LEAST or (cut == len(data) and cut > start):
            yield data[start:cut]
            start = cut


def _cuts(data: bytes) -> list[int]:
    """The places where the gear hash of the bytes before them has twelve zeros."""
    found: list[int] = []
    for begin in range(0, len(data), _PIECE):
        first = max(0, begin - _WINDOW + 1)
        values = _GEAR[np.frombuffer(data, np.uint8, min(len(data), begin + _PIECE) - first, first)]
        hashes = values.copy()
        for back in range(1, _WINDOW):
            hashes[back:] += values[: len(values) - back] << np.uint32(back)
        places = np.flatnonzero((hashes & _MASK) == 0) + first + 1
        found += places[places > begin].tolist()
    return found
