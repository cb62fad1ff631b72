"""The operator's verbs as buttons: label, effect, and which are possible now."""

from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.rollout import RolloutView, Status, Verb
from edgefleet.rollout.lifecycle.table import verbs_now


@dataclass(frozen=True, slots=True)
class Button:
    """``confirm`` is the question asked first. Empty if no question is needed."""

    verb: str
    label: str
    text: str
    confirm: str
    possible: bool


_BUTTONS: Final = (
    (Verb.START, "Start", "Open the first wave.", ""),
    (Verb.PAUSE, "Pause", "Start no more devices until resumed; a failing gate still reverts.", ""),
    (Verb.RESUME, "Resume", "Continue a paused or halted rollout.", ""),
    (
        Verb.ADVANCE,
        "Advance",
        "Pass the open wave by hand, without waiting for its gate, or end the bake.",
        "Pass the open wave without waiting for its gate, or end the bake?",
    ),
    (
        Verb.HALT,
        "Halt",
        "Start no more devices; devices that have the release keep it.",
        "Halt the rollout? Devices that have the release keep it; no other device gets it.",
    ),
    (
        Verb.REVERT,
        "Revert",
        "Roll back every device that has the release.",
        "Roll back every device that has the release?",
    ),
)


def buttons(rollout: RolloutView) -> tuple[Button, ...]:
    """All verbs in a fixed order, so that no button moves under the pointer."""
    possible = set(verbs_now(rollout.status))
    if rollout.status is Status.COMPLETED and rollout.bake and rollout.bake.end is None:
        possible.add(Verb.ADVANCE)
    return tuple(
        Button(verb.value, label, text, confirm, verb in possible)
        for verb, label, text, confirm in _BUTTONS
    )
