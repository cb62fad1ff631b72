"""Manifests of releases without model bytes, for fake devices."""

from collections.abc import Iterable
from typing import Final

from edgefleet.protocol.release import (
    Artifact,
    Golden,
    Quality,
    ReleaseManifest,
    TensorSpec,
    Variant,
)

ARTIFACT_SHA256: Final = "0" * 64
ARTIFACT_BYTES: Final = 4 << 20
GOLDEN_BYTES: Final = 64 << 10
MEMORY_LIMIT_MIB: Final = 64


def fake_manifest(
    model: str,
    release: str,
    profiles: Iterable[str],
    *,
    now: float,
    artifact_bytes: int = ARTIFACT_BYTES,
    golden_bytes: int = GOLDEN_BYTES,
    memory_limit_mib: int = MEMORY_LIMIT_MIB,
) -> ReleaseManifest:
    """A manifest with a variant for each profile. A download is one artifact and the golden set."""
    artifact = Artifact(sha256=ARTIFACT_SHA256, size_bytes=artifact_bytes)
    golden = Artifact(sha256="1" * 64, size_bytes=golden_bytes)
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))
    y = TensorSpec(name="y", datatype="FP32", shape=(-1, 10))
    return ReleaseManifest(
        model=model,
        release=release,
        variants=tuple(
            Variant(
                profile=profile,
                runtime="onnx",
                precision="fp32",
                artifact=artifact,
                inputs=(x,),
                outputs=(y,),
                max_batch=1,
                memory_limit_mib=memory_limit_mib,
            )
            for profile in profiles
        ),
        golden=Golden(artifact=golden, cases=100, min_accuracy=0.9, min_agreement=0.9),
        quality=Quality(output="y", scores="probabilities"),
        created_at=now,
    )
