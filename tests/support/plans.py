"""Small plans, manifests and outcomes for tests of the rollout engine."""

from collections.abc import Iterable

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import ExposureSpec, GateSpec, RolloutSpec, WaveSpec
from edgefleet.rollout.evidence.activations import Course
from edgefleet.rollout.evidence.detector import Grid
from edgefleet.testing import fake_manifest

MODEL = "digits"
START = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
GATE = GateSpec(
    min_sample=5, soak_s=2, confirm_after_s=1, silence_s=8, patience_s=20, min_requests=10
)
COURSE = Course(grid=Grid(first=10, most=50, devices=1000), since=START, pause_s=60.0)
EVERYBODY = ExposureSpec(first=1_000_000)


def manifest(release: str, profiles: Iterable[str] = ("generic_x86",)) -> ReleaseManifest:
    """A manifest whose artifact and golden set have one byte each."""
    return fake_manifest(MODEL, release, profiles, now=START, artifact_bytes=1, golden_bytes=1)


def spec(
    release: str,
    *percents: float,
    selector: str = "",
    gate: GateSpec = GATE,
    exposure: ExposureSpec = EVERYBODY,
    bake_s: float = 0.0,
) -> RolloutSpec:
    """A plan in which a whole wave may begin at once, unless ``exposure`` says otherwise.

    It ends with its last wave; a test of what comes after it gives ``bake_s``.
    """
    waves = tuple(WaveSpec(percent=percent) for percent in percents or (1, 10, 100))
    return RolloutSpec(
        model=MODEL, release=release, selector=selector, waves=waves, gate=gate,
        exposure=exposure, bake_s=bake_s,
    )  # fmt: skip


def outcome(
    rollout: str, release: str, kind: OutcomeKind, *, reason: str = "", at: float = START
) -> Outcome:
    return Outcome(
        id=f"{rollout}-{release}-{kind}", rollout=rollout, release=release, kind=kind,
        at=at, reason=reason,
    )  # fmt: skip
