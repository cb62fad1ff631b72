"""The operator's verbs as buttons: what each does, and which are possible now."""

from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.rollout import RolloutView, Verb
from edgefleet.rollout.lifecycle.table import TABLE, RolloutSignal


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
    (Verb.RESUME, "Resume", "Go on where it was paused or halted.", ""),
    (
        Verb.ADVANCE,
        "Advance",
        "Pass the open wave by hand, without waiting for its gate.",
        "Pass the open wave without waiting for its gate? The next one opens.",
    ),
    (
        Verb.HALT,
        "Halt",
        "Expose nobody new; the devices that have it keep it.",
        "Stop it here? Devices that have the release keep it; nobody new gets it.",
    ),
    (
        Verb.REVERT,
        "Revert",
        "Take it back from every device that has it.",
        "Take the release back from every device that has it?",
    ),
)

_SIGNALS: Final = {
    Verb.START: (RolloutSignal.STARTED,),
    Verb.PAUSE: (RolloutSignal.PAUSED,),
    Verb.RESUME: (RolloutSignal.RESUMED,),
    Verb.ADVANCE: (RolloutSignal.ADVANCED, RolloutSignal.FINISHED),
    Verb.HALT: (RolloutSignal.HALTED,),
    Verb.REVERT: (RolloutSignal.REVERT_REQUESTED,),
}


def buttons(rollout: RolloutView) -> tuple[Button, ...]:
    """All verbs in a fixed order, so that none moves under the pointer."""
    possible = {
        verb
        for verb, signals in _SIGNALS.items()
        if any(TABLE[rollout.status, signal] is not None for signal in signals)
    }
    return tuple(
        Button(verb.value, label, text, confirm, verb in possible)
        for verb, label, text, confirm in _BUTTONS
    )
