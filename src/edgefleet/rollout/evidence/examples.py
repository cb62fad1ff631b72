"""One device for each reason of failure: its name and its words."""

from collections.abc import Callable

from edgefleet.protocol.metrics import SILENCE
from edgefleet.protocol.rollout import Evidence
from edgefleet.rollout.evidence.reasons import Reasons
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.typed_replace import replace


def add_examples(
    evidence: Evidence, reasons: Reasons, silent: Rows, name_of: Callable[[int], str]
) -> Evidence:
    """``evidence`` with a device, and its words, for each of the most frequent reasons.

    ``silent`` are the rows of the silent devices, of which the first is the example of silence.
    """
    found = reasons.examples()
    names = {code: name_of(row) for code, (row, _) in found.items()}
    if len(silent):
        names[SILENCE.reason] = name_of(int(silent[0]))
    words = {code: text for code, (_, text) in found.items() if text}
    return replace(
        evidence, details={**words, **evidence.details}, examples={**names, **evidence.examples}
    )
