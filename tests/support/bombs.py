"""Small ONNX files that take far more memory to read than their size."""

from dataclasses import replace
from pathlib import Path

import msgspec

from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.release import Artifact
from support.tiny_releases import TinyRelease

_GRAPH, _OPSETS = 7, 8
_EMPTY_NODE = b"\x0a\x00"  # two bytes that become an object of about 80 bytes


def protobuf_bomb(size_bytes: int) -> bytes:
    """A well-formed ModelProto whose graph has empty nodes only."""
    graph = _EMPTY_NODE * (size_bytes // len(_EMPTY_NODE))
    return b"\x08\x08" + _field(_GRAPH, graph) + _field(_OPSETS, b"\x10\x11")


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def with_model(release: TinyRelease, path: Path) -> TinyRelease:
    """The release with the file at ``path`` as its only model."""
    data = path.read_bytes()
    artifact = Artifact(sha256=sha256_hex(data), size_bytes=len(data))
    variant = msgspec.structs.replace(release.manifest.variants[0], artifact=artifact)
    manifest = msgspec.structs.replace(release.manifest, variants=(variant,))
    model = replace(release.model, path=path, variant=variant)
    return TinyRelease(manifest, model, release.golden_path)
