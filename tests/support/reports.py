"""A report of made-up candidates, with every kind of plot."""

import numpy as np

from edgefleet.optimize.judgement import AccuracyProof, Interval, Judgement, Refusal
from edgefleet.optimize.measurement import Latency, Measurement
from edgefleet.optimize.recipe import DynamicInt8, Half, Prune, Recipe, StaticInt8, Step
from edgefleet.optimize.report.report import ProfileReport, Report
from support.lineages import digest

CASES = 600
LABELS = tuple(int(one) for one in np.arange(CASES) % 4)


def measured(
    *steps: Step, size: float, p50_ms: float, wrong: int, delta: float | None = None
) -> Measurement:
    """``size`` and ``delta`` in MiB; the first ``wrong`` cases are wrong."""
    recipe = Recipe(runtime="onnx", steps=steps)
    return Measurement(
        recipe=recipe,
        sha256=digest(recipe.name),
        size_bytes=int(size * (1 << 20)),
        compressed_bytes=int(size * 0.93 * (1 << 20)),
        delta_bytes=None if delta is None else int(delta * (1 << 20)),
        value=1 - wrong / CASES,
        cases=tuple(float(place >= wrong) for place in range(CASES)),
        latency=Latency(
            p50_s=p50_ms / 1e3,
            p10_s=p50_ms * 0.8 / 1e3,
            runs=300,
            spread_s=tuple(p50_ms * share / 1e3 for share in (0.78, 0.9, 1.0, 1.3, 2.1)),
        ),
        peak_memory_bytes=int((size * 1.4 + 6) * (1 << 20)),
        batch=1,
        outputs_digest=digest(f"outputs of {recipe.name}"),
    )


BASELINE = measured(size=42.7, p50_ms=5.07, wrong=12)
INT8 = measured(StaticInt8(), size=10.8, p50_ms=1.17, wrong=13, delta=9.1)


def judged(one: Measurement, refused: Refusal | None, text: str) -> Judgement:
    difference = one.value - BASELINE.value
    return Judgement(
        candidate=one,
        accuracy=AccuracyProof(
            baseline=BASELINE.value,
            candidate=one.value,
            difference=Interval(low=difference - 0.006, high=difference + 0.004, level=0.95),
            p_value=0.9,
            smallest_loss=0.011,
        ),
        smaller=BASELINE.size_bytes / one.size_bytes,
        faster=BASELINE.latency.p50_s / one.latency.p50_s,
        refused=refused,
        text=text,
    )


def report() -> Report:
    none = Judgement(
        candidate=None, accuracy=None, smaller=0, faster=0, refused=Refusal.NOT_BUILT,
        text="The converter refuses <If>.",
    )  # fmt: skip
    judgements = (
        judged(INT8, None, "99.8 % of the metric is kept."),
        judged(measured(Half(), size=21.4, p50_ms=5.04, wrong=12), None, "All outputs are equal."),
        judged(
            measured(DynamicInt8(), size=10.7, p50_ms=5.87, wrong=12), Refusal.SLOWER,
            "A batch of 1 takes 5.87 ms, on the baseline 5.07 ms.",
        ),
        judged(
            measured(Prune(share=0.5, epochs=0), size=10.7, p50_ms=0.95, wrong=90),
            Refusal.ACCURACY_LOST, "Only 87 % of the metric is kept; 99 % is required.",
        ),
        none,
    )  # fmt: skip
    good = ProfileReport(
        "generic_x86", BASELINE, judgements, INT8.sha256,
        (INT8.sha256, digest("onnx fp16")), "", LABELS, {0: "shirt", 1: "coat"},
        {"conv1": 0.04, "layer4.conv2": 0.011, "fc": 0.002},
    )  # fmt: skip
    text = "No variant qualifies, because none keeps 99 % of the metric."
    bad = ProfileReport("coral_tpu", BASELINE, (judgements[3],), None, (), text)
    facts = {"evaluation": "600 images", "machine": "2 cores, x86_64", "made with": "onnx 1.20"}
    return Report("fashion", "7", "accuracy", (good, bad), facts)
