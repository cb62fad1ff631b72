"""The operator's verbs as buttons: label, effect, question, and which are possible now."""

from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.rollout import RolloutView, Status, Verb
from edgefleet.protocol.today import today_rows
from edgefleet.rollout.lifecycle.table import verbs_now
from edgefleet.web.words import many, wave_percent


@dataclass(frozen=True, slots=True)
class Button:
    """``confirm`` is the question that is asked first, with the devices that it concerns."""

    verb: str
    label: str
    text: str
    confirm: str
    possible: bool


_BUTTONS: Final = (
    (Verb.START, "Start", "Open the first wave."),
    (Verb.PAUSE, "Pause", "Start no more devices until resumed; a failing gate still reverts."),
    (Verb.RESUME, "Resume", "Continue a paused or halted rollout."),
    (
        Verb.ADVANCE,
        "Advance",
        "Pass the open wave by hand, without waiting for its gate, or end the bake.",
    ),
    (Verb.HALT, "Halt", "Start no more devices; devices that have the release keep it."),
    (Verb.REVERT, "Revert", "Roll back every device that has the release."),
)


def buttons(rollout: RolloutView) -> tuple[Button, ...]:
    """All verbs in a fixed order, so that no button moves under the pointer."""
    possible = set(verbs_now(rollout.status))
    if rollout.status is Status.COMPLETED and rollout.bake and rollout.bake.end is None:
        possible.add(Verb.ADVANCE)
    return tuple(
        Button(verb.value, label, text, _question(rollout, verb), verb in possible)
        for verb, label, text in _BUTTONS
    )


def _question(rollout: RolloutView, verb: Verb) -> str:
    """The question before the verb: its effect now, on how many devices, and its finality."""
    seen = rollout.evidence
    in_trial, has_it = many(seen.in_trial, "device"), many(seen.healthy + seen.in_trial, "device")
    match verb:
        case Verb.START:
            first = rollout.waves[0]
            devices = many(rollout.adds + rollout.had_model, "device")
            name = first.name or wave_percent(first.percent)
            does = "; ".join(
                f"{what} {named}"
                for what, named in today_rows(rollout.model, rollout.release, rollout)
            )
            return f"Open the first wave, {name} of {devices}? The rollout {does}."
        case Verb.PAUSE:
            return f"Pause the rollout? No more devices start; {in_trial} in trial go on."
        case Verb.RESUME:
            return (
                f"Resume the rollout? More devices start; {has_it} have the release now. "
                "The gate goes on judging."
            )
        case Verb.ADVANCE if rollout.status is Status.COMPLETED:
            held = 0 if rollout.bake is None else rollout.bake.holdback
            return (
                f"End the bake? {many(held, 'device')} held back get the release, and it is no "
                "longer rolled back by itself."
            )
        case Verb.ADVANCE:
            return (
                f"Pass the open wave without its gate? In it {many(seen.healthy, 'device')} "
                f"confirmed, {seen.failed + seen.refused} failed, {seen.in_trial} in trial. The "
                "next wave opens at once."
            )
        case Verb.HALT:
            return f"Halt the rollout? {has_it} keep the release; no other device gets it."
        case Verb.REVERT:
            back = f"to {rollout.previous}" if rollout.previous else "to their previous release"
            return (
                f"Roll back {has_it} {back}? This cannot be stopped, and release "
                f"{rollout.release} is offered again only by a plan with --again."
            )
