"""The story: its chapters as data, and the one way in which each is told."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import InternalError
from edgefleet.cli.demo.limits import CHAPTER_TIMEOUT_S, FIRST_WAVE, GATE, LOOK_EVERY_S
from edgefleet.client.hub import HubClient
from edgefleet.client.watch import ENDED, Observed, watch
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, RolloutView, Status, Verb, WaveSpec

MODEL: Final = "digits"


@dataclass(frozen=True, slots=True)
class Chapter:
    """One release, how it goes out, and how that is meant to end.

    ``in_waves``: to a few devices, to more, to all of them, and not to all of them at once.
    ``skip_proof``: the publisher does not run the golden set, so only the devices do.
    """

    release: str
    opening: str
    ends: Status
    reasons: tuple[str, ...]
    in_waves: bool = True
    skip_proof: bool = False
    gate: GateSpec = GATE


STORY: Final = (
    Chapter(
        "1",
        "Release 1, a good baseline, goes to everybody: the first install.",
        Status.COMPLETED,
        ("completed",),
        in_waves=False,
    ),
    Chapter(
        "2",
        "Release 2 is better. It goes out in waves, each when the one before has passed.",
        Status.COMPLETED,
        ("completed",),
    ),
    Chapter(
        "3",
        "Release 3 passed its golden set, but does not cope with what devices really see.",
        Status.REVERTED,
        ("error_rate", "confidence_drop"),
    ),
    Chapter(
        "4",
        "Release 4 does not do what its golden set says, and its publisher did not look.",
        Status.REFUSED,
        ("refused_by_devices",),
        skip_proof=True,
    ),
)

Tell = Callable[[str], None]


def waves_of(chapter: Chapter, devices: int) -> tuple[WaveSpec, ...]:
    """1 %, 10 % and 100 % of the fleet; of a small one more, or a verdict would be up to chance."""
    least = next((p for p in range(1, 100) if math.ceil(devices * p / 100) >= FIRST_WAVE), 100)
    first = float(least) if chapter.in_waves else 100.0
    return tuple(WaveSpec(percent=share) for share in sorted({first, max(first, 10.0), 100.0}))


def tell_rollout(
    client: HubClient,
    chapter: Chapter,
    gate: GateSpec,
    devices: int,
    *,
    clock: Clock,
    tell: Tell,
    pause: Callable[[float], None],
) -> RolloutView:
    """Plan and start the chapter's rollout, say what happens as it happens, return how it ended.

    ``devices`` are all that are enrolled.

    Raises InternalError ``demo_failed`` when it does not end in time, and what the hub refuses.
    """
    spec = RolloutSpec(
        model=MODEL,
        release=chapter.release,
        waves=waves_of(chapter, devices),
        gate=gate,
    )
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START)
    view, told = None, ""
    for sight in watch(
        client,
        rollout,
        clock=clock,
        timeout_s=CHAPTER_TIMEOUT_S,
        every_s=LOOK_EVERY_S,
        sleep=pause,
    ):
        if isinstance(sight, Observed):
            view = sight.view
            if (now := _milestone(view)) != told:
                told = now
                tell(f"  {_line(view)}")
    if view is None or view.status not in ENDED:
        waits = view.why.line if view else "it was never seen"
        raise InternalError("demo_failed", f"Release {chapter.release} does not end: {waits}")
    tell(f"  {_closing(view)}")
    return view


def _closing(view: RolloutView) -> str:
    """What became of the devices that were offered it."""
    seen = view.evidence
    match view.status:
        case Status.COMPLETED:
            return f"Devices that run it: {view.exposed:,}; out of reach: {seen.not_begun:,}."
        case Status.REVERTED:
            return (
                f"Devices that took it: {view.exposed}. Went back by themselves: {seen.failed}; "
                f"because the hub said so: {seen.reverted}."
            )
        case Status.REFUSED:
            return f"Devices that proved and refused it: {seen.refused}; that served it: none."
        case _:
            return f"It stands {view.status}."


def _milestone(view: RolloutView) -> str:
    """Changes when there is something to tell: not with each device that reports."""
    judgement = None if view.wave is None else view.waves[view.wave].judgement
    return f"{view.status} {view.wave} {judgement.reason if judgement else ''}"


def _line(view: RolloutView) -> str:
    if view.wave is None:
        return view.why.line
    wave = view.waves[view.wave]
    name = f"wave {view.wave + 1} of {len(view.waves)}, {wave.percent:g} %"
    return f"{name}, {wave.exposed} of {wave.cut} took it: {view.why.line}"
