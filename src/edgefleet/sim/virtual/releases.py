"""The two releases of each simulated model: the current one, and the one rolled out."""

from edgefleet.agent.state import InstalledRelease
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.release import (
    Artifact,
    Golden,
    Quality,
    ReleaseManifest,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.wire import encode
from edgefleet.sim.virtual.scenario import NEW, OLD, OLD_TRUTH, Scenario


def manifest(
    model: str, release: str, scenario: Scenario, created_at: float
) -> tuple[ReleaseManifest, str]:
    """The manifest of ``release``, and its digest."""
    size_bytes = scenario.truths.get(model, OLD_TRUTH).size_bytes
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))

    def artifact(name: str) -> Artifact:
        sha256 = sha256_hex(f"{model}/{release}/{name}".encode())
        return Artifact(sha256=sha256, size_bytes=size_bytes)

    made = ReleaseManifest(
        model=model,
        release=release,
        variants=tuple(
            Variant(
                profile=profile,
                runtime="onnx",
                precision="fp32",
                artifact=artifact(profile),
                inputs=(tensor,),
                outputs=(tensor,),
                max_batch=1,
                memory_limit_mib=64,
            )
            for profile in scenario.fleet.profiles
        ),
        golden=Golden(
            artifact=Artifact(sha256=sha256_hex(b"golden"), size_bytes=20_000),
            cases=100,
            min_accuracy=0.9,
            min_agreement=0.9,
        ),
        quality=Quality(output="y", scores="probabilities"),
        created_at=created_at,
        parent=OLD if release == NEW else None,
    )
    return made, sha256_hex(encode(made))


def installed_release(made: ReleaseManifest, sha256: str, profile: str) -> InstalledRelease:
    """The release as installed on a device of ``profile``."""
    variant = next(one for one in made.variants if one.profile == profile)
    return InstalledRelease.of(made, sha256, variant)
