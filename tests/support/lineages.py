"""Lineage documents of made-up variants."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from msgspec.structs import replace

from edgefleet.optimize.judgement import AccuracyProof, Interval, Judgement
from edgefleet.optimize.lineage import MadeVariant, Making, lineage
from edgefleet.optimize.measurement import Latency, Measurement
from edgefleet.optimize.recipe import Recipe, StaticInt8
from edgefleet.optimize.source_model import SourceModel
from edgefleet.protocol.lineage import Statement
from edgefleet.serving.model_file import ModelFacts
from edgefleet.serving.runtime_versions import FormatVersions

INT8 = Recipe(runtime="onnx", steps=(StaticInt8(),))
AT = 1_790_000_000.0


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def judgement(artifact: str) -> Judgement:
    return Judgement(
        candidate=Measurement(
            recipe=INT8,
            sha256=artifact,
            size_bytes=12_000,
            compressed_bytes=11_000,
            delta_bytes=None,
            value=0.9735,
            cases=(1.0, 0.0, 1.0),
            latency=Latency(p50_s=0.0012, p10_s=0.0009, runs=200),
            peak_memory_bytes=9 << 20,
            batch=1,
            outputs_digest=digest("outputs"),
        ),
        accuracy=AccuracyProof(
            baseline=0.975,
            candidate=0.9735,
            difference=Interval(low=-0.004, high=0.001, level=0.95),
            p_value=0.5,
            smallest_loss=0.003,
        ),
        smaller=3.93,
        faster=4.1,
        refused=None,
        text="99.85 % of the metric is kept.",
    )


def measured_on_bench(
    artifact: str, profile: str, recipe: Recipe, *, release: str, p50_ms: float
) -> Statement:
    """The lineage of one variant of a model of 48,000 bytes, a quarter of it by any recipe."""
    judged = judgement(artifact)
    assert judged.candidate is not None
    latency = Latency(p50_s=p50_ms / 1e3, p10_s=p50_ms * 0.9 / 1e3, runs=200)
    made = replace(judged, smaller=4.0,
                   candidate=replace(judged.candidate, recipe=recipe, latency=latency))  # fmt: skip
    making = Making(
        model="digits", release=release, source=source(), data={}, tools={}, machine={},
        started_at=AT, finished_at=AT,
    )  # fmt: skip
    return lineage([MadeVariant(profile, "m.onnx", artifact, recipe, made)], making)


def source(**lineage: object) -> SourceModel:
    return SourceModel(
        Path("m.onnx"),
        ModelFacts((), (), FormatVersions(8, 17)),
        digest("source"),
        (digest("parent"),),
        lineage,
    )


def statement(artifacts: Sequence[str], *, model: str = "digits", release: str = "2") -> Statement:
    """The lineage of one variant for each artifact, of the profiles p0, p1 ..."""
    return lineage(
        [
            MadeVariant(f"p{number}", f"int8-{number}.onnx", artifact, INT8, judgement(artifact))
            for number, artifact in enumerate(artifacts)
        ],
        Making(
            model=model,
            release=release,
            source=source(mlflow_run="0f3a", accuracy=0.975),
            data={"evaluation": digest("evaluation"), "calibration": digest("calibration")},
            tools={"edgefleet": "0.1.0", "onnxruntime": "1.23.0"},
            machine={"architecture": "x86_64", "cores": 2, "instructions": ["avx2"]},
            started_at=AT,
            finished_at=AT + 61,
        ),
    )
