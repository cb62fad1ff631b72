"""The labelled accuracy of a release beside the previous one, as people see it."""

from edgefleet.base.texts import counted
from edgefleet.protocol.metric_bounds import Unit
from edgefleet.protocol.wire import Wire


class LabelEvidence(Wire, frozen=True, kw_only=True):
    """Answers of the release (canary) and of the previous one (control) with a late label.

    ``unmatched`` labels found no answer on their device. ``is_shared`` is True if devices that
    still run the previous release became less accurate as well.
    """

    canary: int = 0
    canary_correct: int = 0
    control: int = 0
    control_correct: int = 0
    unmatched: int = 0
    is_shared: bool = False

    @property
    def is_empty(self) -> bool:
        """True without any label."""
        return not (self.canary or self.control or self.unmatched)

    @property
    def text(self) -> str:
        """The accuracies with their counts. Empty without labels."""
        if self.is_empty:
            return ""
        return (
            f"{_accuracy(self.canary_correct, self.canary)}, "
            f"control {_accuracy(self.control_correct, self.control)}"
            + (f"; {_labels(self.unmatched)} found no answer" if self.unmatched else "")
        )


def _accuracy(correct: int, labelled: int) -> str:
    share = f"{Unit.SHARE.text(correct / labelled)} " if labelled else ""
    return f"{share}of {_labels(labelled)}"


def _labels(count: int) -> str:
    return counted(count, "label")
