"""The chapters of the demo as data, and the function that runs one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import InternalError
from edgefleet.cli.demo.limits import CHAPTER_TIMEOUT_S, FIRST_WAVE, GATE, POLL_EVERY_S
from edgefleet.client.hub import HubClient
from edgefleet.client.watch import ENDED, Observed, watch
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, RolloutView, Status, Verb, WaveSpec

MODEL: Final = "digits"


@dataclass(frozen=True, slots=True)
class Chapter:
    """One release, its rollout, and the expected status at the end.

    ``in_waves``: in three waves instead of one. ``skip_proof``: the publisher does not run the
    golden set, so only the devices do.
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
        "Release 1, a good baseline: first install on every device, into A/B slots.",
        Status.COMPLETED,
        ("completed",),
        in_waves=False,
    ),
    Chapter(
        "2",
        "Release 2 is better: a canary wave first, then wave by wave as the gate passes.",
        Status.COMPLETED,
        ("completed",),
    ),
    Chapter(
        "3",
        "Release 3 passes its golden set but fails on live input: automatic rollback.",
        Status.REVERTED,
        ("error_rate", "confidence_drop"),
    ),
    Chapter(
        "4",
        "Release 4 fails its golden set and was published without a proof: devices refuse it.",
        Status.REFUSED,
        ("refused_by_devices",),
        skip_proof=True,
    ),
)

Report = Callable[[str], None]


def waves_of(chapter: Chapter, devices: int) -> tuple[WaveSpec, ...]:
    """1 %, 10 % and 100 % of the fleet. A small fleet has a larger first wave."""
    least = next((p for p in range(1, 100) if math.ceil(devices * p / 100) >= FIRST_WAVE), 100)
    first = float(least) if chapter.in_waves else 100.0
    return tuple(WaveSpec(percent=share) for share in sorted({first, max(first, 10.0), 100.0}))


def run_chapter(
    client: HubClient,
    chapter: Chapter,
    gate: GateSpec,
    devices: int,
    *,
    clock: Clock,
    report: Report,
    pause: Callable[[float], None],
) -> RolloutView:
    """Plan and start the chapter's rollout, report its progress, and return its last view.

    ``devices`` is the number of enrolled devices. Raises InternalError ``demo_failed`` after the
    timeout, and the errors of the hub.
    """
    spec = RolloutSpec(
        model=MODEL,
        release=chapter.release,
        waves=waves_of(chapter, devices),
        gate=gate,
    )
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START)
    view, reported = None, ""
    for sight in watch(
        client,
        rollout,
        clock=clock,
        timeout_s=CHAPTER_TIMEOUT_S,
        every_s=POLL_EVERY_S,
        sleep=pause,
    ):
        if isinstance(sight, Observed):
            view = sight.view
            if (now := _milestone(view)) != reported:
                reported = now
                report(f"  {_line(view)}")
    if view is None or view.status not in ENDED:
        waits = view.why.line if view else "the hub sent no view of it"
        raise InternalError(
            "demo_failed",
            f"Release {chapter.release} has not ended after {CHAPTER_TIMEOUT_S:g} s: {waits}",
        )
    report(f"  {_closing(view)}")
    return view


def _closing(view: RolloutView) -> str:
    """The devices by outcome, as a sentence."""
    evidence = view.evidence
    match view.status:
        case Status.COMPLETED:
            away = evidence.not_begun
            return f"{view.exposed:,} devices run it, {away:,} are out of reach."
        case Status.REVERTED:
            return (
                f"{view.exposed} devices ran it; {evidence.failed} rolled back on their own, "
                f"{evidence.reverted} were rolled back by the hub."
            )
        case Status.REFUSED:
            return f"{evidence.refused} devices found that it fails its golden set; none served it."
        case _:
            return f"The rollout is {view.status}."


def _milestone(view: RolloutView) -> str:
    """A key that changes with status, wave and reason, and not with each report."""
    judgement = None if view.wave is None else view.waves[view.wave].judgement
    return f"{view.status} {view.wave} {judgement.reason if judgement else ''}"


def _line(view: RolloutView) -> str:
    if view.wave is None:
        return view.why.line
    wave = view.waves[view.wave]
    name = f"wave {view.wave + 1} of {len(view.waves)}, {wave.percent:g} %"
    return f"{name}, {wave.exposed} of {wave.cut} devices exposed: {view.why.line}"
