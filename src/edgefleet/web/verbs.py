"""The operator's verbs as buttons: what each does, and which are possible now."""

from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.rollout import RolloutView, Status, Verb


@dataclass(frozen=True, slots=True)
class Button:
    """``confirm`` is the question asked first, empty where none is needed."""

    verb: str
    label: str
    text: str
    confirm: str
    possible: bool


_BUTTONS: Final = (
    (Verb.START, "Start", "Open the first wave.", ""),
    (Verb.PAUSE, "Pause", "Offer it to nobody new until resumed; a failing gate still acts.", ""),
    (Verb.RESUME, "Resume", "Go on where it was paused.", ""),
    (
        Verb.ADVANCE,
        "Advance",
        "Open the next wave now, without waiting for the gate to pass.",
        "Open the next wave without waiting for the gate?",
    ),
    (
        Verb.HALT,
        "Halt",
        "Expose nobody new; the devices that have it keep it.",
        "Stop it for good? Devices that have the release keep it.",
    ),
    (
        Verb.REVERT,
        "Revert",
        "Take it back from every device that has it.",
        "Take the release back from every device that has it?",
    ),
)

_POSSIBLE: Final = {
    Status.PLANNED: frozenset({Verb.START, Verb.HALT}),
    Status.RUNNING: frozenset({Verb.PAUSE, Verb.ADVANCE, Verb.HALT, Verb.REVERT}),
    Status.PAUSED: frozenset({Verb.RESUME, Verb.HALT, Verb.REVERT}),
    Status.HALTED: frozenset({Verb.REVERT}),
    Status.REVERTING: frozenset[Verb](),
    Status.COMPLETED: frozenset({Verb.REVERT}),
    Status.REVERTED: frozenset[Verb](),
    Status.REFUSED: frozenset[Verb](),
}


def buttons(rollout: RolloutView) -> tuple[Button, ...]:
    """All verbs in a fixed order, so that none moves under the pointer."""
    possible = _POSSIBLE[rollout.status]
    return tuple(
        Button(verb.value, label, text, confirm, verb in possible)
        for verb, label, text, confirm in _BUTTONS
    )
