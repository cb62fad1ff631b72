"""Labels: the truth about answers, known later than the answers, and its counts by release.

A label names one inference by its id, or all inferences of a model in a span of time. The serving
process compares it with the answer that it gave, because only the device has the answers.
"""

from typing import Annotated, Final

from msgspec import Meta

from edgefleet.base.limits import MODELS_PER_DEVICE, NAME_CHARS
from edgefleet.protocol.wire import Wire

LABELS_AT_ONCE: Final = 1_000  # in one request
LABELS_PER_ANSWER: Final = 256  # in one answer to a check-in
LABEL_RELEASES: Final = 4  # releases of a model whose counts a device reports
ID_CHARS: Final = 256

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
_Count = Annotated[int, Meta(ge=0, le=1 << 53)]
_Class = Annotated[int, Meta(ge=0, lt=1 << 31)]


class Label(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """The truth about one inference (``id``), or about all of a span (``since`` to ``until``).

    ``truth`` is the index of the class, or one for each item of a batch. Times are in seconds of
    the device's clock since 1970, both ends included.
    """

    id: Annotated[str, Meta(max_length=ID_CHARS)] = ""
    since: float | None = None
    until: float | None = None
    truth: _Class | Annotated[tuple[_Class, ...], Meta(min_length=1, max_length=1024)]

    @property
    def fault(self) -> str:
        """The fault in the combination of fields, as a sentence. Empty without one."""
        is_span = self.since is not None and self.until is not None
        if self.id:
            return "Give an id or a span, not both." if self.since or self.until else ""
        if not is_span:
            return "Give an id, or both since and until."
        if (self.since or 0.0) > (self.until or 0.0):
            return "since is after until."
        return "" if isinstance(self.truth, int) else "A span has one class for all its answers."


class Truth(Wire, frozen=True, kw_only=True):
    """Labels for the answers of one model on this device."""

    labels: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=LABELS_AT_ONCE)]


class Labelled(Wire, frozen=True, kw_only=True):
    """The effect of labels on the counts of the serving process.

    ``unmatched`` labels name no answer that the process remembers, or not exactly one request.
    ``repeated`` answers had a label before, which is kept.
    """

    labelled: int = 0
    correct: int = 0
    repeated: int = 0
    unmatched: int = 0


class ModelTruth(Wire, frozen=True, kw_only=True):
    """A label of one model, with its number at the hub, which rises."""

    number: Annotated[int, Meta(ge=1)]
    model: _Name
    label: Label


class ReleaseLabels(Wire, frozen=True, kw_only=True):
    """Counters of labelled answers of one release, and of the correct ones among them."""

    release: _Name
    labelled: _Count
    correct: _Count


class ModelLabels(Wire, frozen=True, kw_only=True):
    """The counters of one model. ``unmatched`` labels found no answer."""

    model: _Name
    unmatched: _Count = 0
    releases: Annotated[tuple[ReleaseLabels, ...], Meta(max_length=LABEL_RELEASES)] = ()


class LabelReport(Wire, frozen=True, kw_only=True):
    """The counters of a serving process since its start. ``epoch`` is another for each process.

    The counters only rise within an epoch, so a report that arrives twice counts once.
    """

    epoch: Annotated[int, Meta(ge=1, le=1 << 53)]
    models: Annotated[tuple[ModelLabels, ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
