"""Measurements of made-up candidates."""

from hashlib import sha256

from edgefleet.optimize.measurement import Latency, Measurement, Resampled
from edgefleet.optimize.recipe import Half, Recipe, StaticInt8, Step

MIB = 1 << 20
BASELINE = Recipe(runtime="onnx")
INT8 = Recipe(runtime="onnx", steps=(StaticInt8(),))
FP16 = Recipe(runtime="onnx", steps=(Half(),))


def measured(
    name: str = "baseline",
    *,
    steps: tuple[Step, ...] = (),
    size: int = 40 * MIB,
    transfer: int | None = None,
    value: float | None = None,
    cases: tuple[float, ...] = (),
    resampled: Resampled | None = None,
    p50: float = 0.004,
    p10: float | None = None,
    memory: int = 100 * MIB,
    batch: int = 1,
    sha256_of: str = "",
    outputs_of: str = "",
) -> Measurement:
    return Measurement(
        recipe=Recipe(runtime="onnx", steps=steps),
        sha256=sha256((sha256_of or name).encode()).hexdigest(),
        size_bytes=size,
        compressed_bytes=size if transfer is None else transfer,
        delta_bytes=None,
        value=sum(cases) / len(cases) if value is None else value,
        cases=cases,
        latency=Latency(p50_s=p50, p10_s=p50 if p10 is None else p10, runs=100),
        peak_memory_bytes=memory,
        batch=batch,
        outputs_digest=sha256((outputs_of or name).encode()).hexdigest(),
        resampled=resampled,
    )


def right_wrong(cases: int, *, right: int, losses: int = 0, gains: int = 0) -> tuple[float, ...]:
    """Scores of a candidate of a baseline with the first ``right`` cases right."""
    kept = right - losses
    assert 0 <= losses <= right
    assert gains <= cases - right
    return (*[0.0] * losses, *[1.0] * kept, *[1.0] * gains, *[0.0] * (cases - right - gains))
