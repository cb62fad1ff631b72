"""How the answers to a golden set are compared with the truth and with the reference outputs.

``edgefleet.serving.comparisons`` computes them.
"""

from typing import Annotated, Final

from msgspec import Meta

from edgefleet.protocol.wire import Wire

PLUGIN_GROUP: Final = "edgefleet.comparisons"
"""The group of the entry points of plug-ins."""


class Top1(Wire, frozen=True, kw_only=True, tag_field="kind", tag="top1"):
    """A case is right if the highest score of ``output`` is that of its ``label``."""

    output: str


class Elementwise(Wire, frozen=True, kw_only=True, tag_field="kind", tag="elementwise"):
    """A case is right if each value differs by at most ``absolute + relative * |wanted|``."""

    outputs: tuple[str, ...]
    absolute: Annotated[float, Meta(ge=0)]
    relative: Annotated[float, Meta(ge=0)]


class Cosine(Wire, frozen=True, kw_only=True, tag_field="kind", tag="cosine"):
    """A case is right if its vector has at least the cosine ``least`` with the wanted one."""

    output: str
    least: Annotated[float, Meta(ge=-1, le=1)]


class Exact(Wire, frozen=True, kw_only=True, tag_field="kind", tag="exact"):
    """A case is right if each value is equal."""

    outputs: tuple[str, ...]


class MeanIou(Wire, frozen=True, kw_only=True, tag_field="kind", tag="iou"):
    """The mean over the classes of intersection over union of their pixels.

    ``class_axis`` is the axis of the class scores in ``output``. -1: the output has class numbers.
    The truth has class numbers in both cases.
    """

    output: str
    class_axis: Annotated[int, Meta(ge=-1)]


class MeanPrecision(Wire, frozen=True, kw_only=True, tag_field="kind", tag="map"):
    """The mean over the classes of the average precision of boxes (mAP).

    A found box counts if it overlaps an unmatched wanted box of its class with at least ``iou``.
    ``boxes`` is an output of shape [cases, boxes, 4] with x1, y1, x2, y2. With empty ``scores`` it
    is [cases, boxes, 6]: the corners, the score and the class. ``scores`` is [cases, boxes], or
    [cases, boxes, classes] without ``classes``. Wanted boxes are those with at least ``min_score``.
    """

    boxes: str
    scores: str = ""
    classes: str = ""
    iou: Annotated[float, Meta(gt=0, le=1)] = 0.5
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.5


class PluginComparison(Wire, frozen=True, kw_only=True, tag_field="kind", tag="plugin"):
    """A callable of the publisher, installed here and on the devices.

    ``name`` is its entry point in the group ``edgefleet.comparisons``.
    """

    name: Annotated[str, Meta(pattern=r"^[\w.-]{1,55}\Z")]
    outputs: tuple[str, ...]


Comparison = Top1 | Elementwise | Cosine | Exact | MeanIou | MeanPrecision | PluginComparison

BUILT_IN: Final = ("top1", "elementwise", "cosine", "exact", "iou", "map")
"""The comparisons without a plug-in, by their names."""


def comparison_name(comparison: Comparison | None) -> str:
    """The name by which a device reports the comparison. Empty for None, which every agent has."""
    match comparison:
        case None:
            return ""
        case PluginComparison(name=name):
            return f"plugin:{name}"
        case other:
            return str(other.__struct_config__.tag)


def compared_outputs(comparison: Comparison) -> tuple[str, ...]:
    """The outputs that the comparison reads."""
    match comparison:
        case Top1(output=name) | Cosine(output=name) | MeanIou(output=name):
            return (name,)
        case MeanPrecision(boxes=boxes, scores=scores, classes=classes):
            return tuple(name for name in (boxes, scores, classes) if name)
        case _:
            return comparison.outputs


def comparison_text(comparison: Comparison | None) -> str:
    """The rule by which a case is right, for people."""
    match comparison:
        case None:
            return "the highest score"
        case Top1(output=name):
            return f"the highest score of {name}"
        case Elementwise(outputs=names, absolute=absolute, relative=relative):
            return (
                f"each value of {', '.join(names)} within {absolute:g} + {relative:.3g} * |value|"
            )
        case Cosine(output=name, least=least):
            return f"cosine of {name} at least {least:g}"
        case Exact(outputs=names):
            return f"each value of {', '.join(names)} equal"
        case MeanIou(output=name):
            return f"mean IoU of {name}"
        case MeanPrecision(boxes=name, iou=iou):
            return f"mAP of {name} at IoU {iou:g}"
        case PluginComparison(name=name):
            return f"the plug-in {name}"
