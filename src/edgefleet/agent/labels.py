"""Labels: those of the hub go to the serving process, and the counts of all labels to the hub.

Nothing is stored. The hub sends its labels until they are acknowledged, and the serving process
counts an answer once, so a repeated delivery changes nothing.
"""

from edgefleet.agent.effect import GiveTruth
from edgefleet.agent.event import TruthGiven
from edgefleet.agent.state import Sent
from edgefleet.agent.step_context import DeviceContext
from edgefleet.protocol.device import CheckInAnswer
from edgefleet.protocol.labels import LabelReport


def to_report(device: DeviceContext) -> LabelReport | None:
    """The counts of the serving process. None if the hub has them."""
    serving = device.soft.serving
    if serving is None or serving.labels == device.soft.labels:
        return None
    return serving.labels


def apply_answer(device: DeviceContext, sent: Sent, answer: CheckInAnswer) -> None:
    """Note what the hub has now, and give its labels to the serving process."""
    if sent.labels is not None:
        device.forgettable(labels=sent.labels)
    if sent.truth_done and sent.truth_done == device.soft.truth_done:
        device.forgettable(truth_done=0)
    if answer.truth:
        device.do(GiveTruth(truth=answer.truth))


def on_truth_given(device: DeviceContext, event: TruthGiven) -> None:
    """Acknowledge the labels with the next check-in."""
    device.forgettable(truth_done=max(device.soft.truth_done, event.number))
