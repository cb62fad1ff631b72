"""Releases of a few bytes for simulated devices, and their behaviour as set by a test."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

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
from edgefleet.protocol.serving import ProveResult
from edgefleet.security.signing import PublisherKey
from edgefleet.sim.load.hub_api import Failed
from edgefleet.sim.load.serving_process import ModelBehaviour

MODEL = "digits"
KEY = PublisherKey.generate()
PROFILES = ("generic_x86", "jetson_nano", "raspberry_pi", "coral_tpu")


def model_bytes(release: str, size_bytes: int = 40_000) -> bytes:
    return f"model {release} ".encode().ljust(size_bytes, b".")


def golden_bytes(release: str) -> bytes:
    return f"golden {release} ".encode().ljust(20_000, b".")


def artifact(data: bytes) -> Artifact:
    return Artifact(sha256=sha256_hex(data), size_bytes=len(data))


def manifest(release: str, model: str = MODEL) -> ReleaseManifest:
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))
    variants = tuple(
        Variant(
            profile=profile,
            runtime="onnx",
            precision="fp32",
            artifact=artifact(model_bytes(release)),
            inputs=(tensor,),
            outputs=(tensor,),
            max_batch=4,
            memory_limit_mib=64,
        )
        for profile in PROFILES
    )
    return ReleaseManifest(
        model=model,
        release=release,
        variants=variants,
        golden=Golden(
            artifact=artifact(golden_bytes(release)), cases=10, min_accuracy=0.9, min_agreement=0.9
        ),
        quality=Quality(output="x", scores="probabilities", min_requests=10),
        created_at=0.0,
    )


def behaviour(confidence: float = 0.95, *, passed: bool = True) -> ModelBehaviour:
    proof = ProveResult(
        passed=passed,
        reason="" if passed else "golden_failed",
        accuracy=0.95 if passed else 0.1,
        cases=10,
        latency_us_p50=100,
        load_ms=20.0,
    )
    spread = tuple(confidence + 0.04 * (place - 128) / 128 for place in range(256))
    return ModelBehaviour(proof, spread, 0.95, 100, 300, 20)


@dataclass
class SetBehaviours:
    """A laboratory whose behaviours are set by release. A release without one is good."""

    behaviours: dict[str, ModelBehaviour] = field(default_factory=dict)
    studied: Counter[str] = field(default_factory=Counter)

    def study(
        self,
        installed: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour | Failed], None],
    ) -> None:
        assert model == model_bytes(installed.release)
        assert golden == golden_bytes(installed.release)
        self.studied[installed.release] += 1
        done(self.behaviours.get(installed.release, behaviour()))
