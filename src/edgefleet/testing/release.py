"""Releases without a model in them, for devices without a runtime."""

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

ARTIFACT: Final = Artifact(sha256="0" * 64, size_bytes=4 << 20)
GOLDEN: Final = Artifact(sha256="1" * 64, size_bytes=64 << 10)


def fake_manifest(
    model: str, release: str, profiles: Iterable[str], *, now: float
) -> ReleaseManifest:
    """A manifest with a variant for each profile."""
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
                artifact=ARTIFACT,
                inputs=(x,),
                outputs=(y,),
                max_batch=1,
                memory_limit_mib=64,
            )
            for profile in profiles
        ),
        golden=Golden(artifact=GOLDEN, cases=100, min_accuracy=0.9, min_agreement=0.9),
        quality=Quality(output="y", scores="probabilities"),
        created_at=now,
    )
