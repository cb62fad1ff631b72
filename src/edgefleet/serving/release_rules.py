"""Rules that a manifest must keep: task, comparison, class scores and variants fit together.

The publisher's command and the hub check the same rules.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.class_names import check_names
from edgefleet.protocol.comparisons import Top1, compared_outputs, comparison_name
from edgefleet.protocol.release import FLOATS, Quality, ReleaseManifest, Task, TensorSpec, Variant

COMPARISONS: Final[Mapping[Task, tuple[str, ...]]] = {
    "classification": ("", "top1"),
    "detection": ("map",),
    "segmentation": ("iou",),
    "regression": ("elementwise",),
    "embedding": ("cosine", "elementwise"),
    "text": ("exact",),
    "none": ("elementwise", "exact", "cosine"),
}
"""The built-in comparisons of each task. A plug-in fits every task."""


def check_rules(manifest: ReleaseManifest) -> None:
    """Raises PublisherError ``release_file_invalid`` with the field of the first broken rule."""
    _check_task(manifest)
    for index, variant in enumerate(manifest.variants):
        _check_outputs(manifest, variant, f"variants[{index}]")
    check_precisions(manifest.variants)
    check_names(manifest)


def check_precisions(variants: tuple[Variant, ...]) -> None:
    """Raises PublisherError ``release_file_invalid`` if one file has two precisions."""
    known: dict[str, Variant] = {}
    for index, variant in enumerate(variants):
        first = known.setdefault(variant.artifact.sha256, variant)
        if first.precision != variant.precision:
            raise _invalid(
                f"variants[{index}].precision",
                f"The {variant.precision} file of {variant.profile} is byte-identical to the "
                f"{first.precision} file of {first.profile}: one of them is not what it is called.",
                hint="Convert the model for this profile, or give both the same precision.",
            )


def check_scores(quality: Quality, spec: TensorSpec, field: str = "quality.output") -> None:
    """Raises PublisherError ``release_file_invalid`` if an output has no class scores."""
    if len(spec.shape) != 2 or spec.datatype not in FLOATS:
        raise _invalid(
            field,
            f"Output {spec.name!r} is {spec.datatype} of shape {spec.shape}.",
            hint="Name an output of class scores: floats of shape [-1, classes]. The label of a "
            "scikit-learn export is its first output, and the scores are 'probabilities'. For "
            "other answers than class scores, set the task.",
        )
    if spec.shape[1] == 1:
        raise _invalid(
            field,
            f"Output {quality.output!r} has one class, so every answer would be right.",
            hint='If the model predicts a number, set task = "regression".',
        )


def _check_task(manifest: ReleaseManifest) -> None:
    name = comparison_name(manifest.golden.comparison)
    allowed = COMPARISONS[manifest.task]
    if name not in allowed and not name.startswith("plugin:"):
        raise _invalid(
            "golden.comparison",
            f"A {manifest.task} model is compared by {' or '.join(filter(None, allowed))}, "
            f"not by {name or 'top1'}.",
        )
    if (manifest.quality is not None) != (manifest.task == "classification"):
        raise _invalid(
            "quality",
            "Only a classification model has class scores, and it must name them; the task is "
            f"{manifest.task}.",
        )


def _check_outputs(manifest: ReleaseManifest, variant: Variant, field: str) -> None:
    outputs = {spec.name: spec for spec in variant.outputs}
    if manifest.quality is not None:
        scores = outputs.get(manifest.quality.output)
        if scores is None:
            raise _invalid("quality.output", f"{field} has no output {manifest.quality.output!r}.")
        check_scores(manifest.quality, scores)
    comparison = manifest.golden.comparison
    if comparison is None:
        return
    for name in compared_outputs(comparison):
        if name not in outputs:
            raise _invalid("golden.comparison", f"{field} has no output {name!r}.")
        is_text = outputs[name].datatype == "BYTES"
        if is_text and comparison_name(comparison) in ("elementwise", "cosine", "iou", "map"):
            raise _invalid(
                "golden.comparison", f"Output {name!r} is text, which only `exact` compares."
            )
    quality = manifest.quality
    if quality and isinstance(comparison, Top1) and comparison.output != quality.output:
        raise _invalid(
            "golden.comparison",
            f"The golden set compares output {comparison.output!r}, and the class scores are in "
            f"{quality.output!r}.",
        )


def _invalid(field: str, message: str, *, hint: str | None = None) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field, hint=hint)
