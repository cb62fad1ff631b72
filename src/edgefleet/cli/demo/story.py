"""The acts and chapters of the demo as data, and the function that runs an act."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import InternalError
from edgefleet.cli.demo.limits import (
    BAKE_S,
    CHAPTER_TIMEOUT_S,
    FIRST_INSTALL,
    FIRST_WAVE,
    GATE,
    POLL_EVERY_S,
    UPDATE,
)
from edgefleet.client.hub import HubClient
from edgefleet.client.watch import NoAnswer, Observed, has_ended, watch
from edgefleet.protocol.rollout import BakeView, RolloutSpec, RolloutView, Status, Verb, WaveSpec


@dataclass(frozen=True, slots=True)
class Chapter:
    """One release of a model, its rollout, and the expected status at the end.

    ``first_install``: the model is new to the devices, so the rollout replaces nothing and has one
    wave instead of three. ``skip_proof``: the publisher does not run the golden set, so only the
    devices do. ``bakes``: the chapter ends with the bake of its rollout.
    """

    model: str
    release: str
    opening: str
    ends: Status
    reasons: tuple[str, ...]
    first_install: bool = False
    skip_proof: bool = False
    bakes: bool = False

    @property
    def name(self) -> str:
        return f"{self.model} {self.release}"

    @property
    def is_good(self) -> bool:
        """Whether its rollout must complete."""
        return self.ends is Status.COMPLETED


Act = tuple[Chapter, ...]
"""Chapters whose rollouts are open at the same time, started in this order."""

ACTS: Final[tuple[Act, ...]] = (
    (
        Chapter(
            "digits",
            "1",
            "digits 1, a good baseline: first install on every device, into A/B slots.",
            Status.COMPLETED,
            ("completed",),
            first_install=True,
        ),
    ),
    (
        Chapter(
            "digits",
            "2",
            "digits 2 is better: a canary wave first, then wave by wave, then a short bake.",
            Status.COMPLETED,
            ("completed",),
            bakes=True,
        ),
    ),
    (
        Chapter(
            "digits",
            "3",
            "digits 3 passes its golden set but fails on live input: automatic rollback.",
            Status.REVERTED,
            ("error_rate", "confidence_drop", "late_failures", "class_failures"),
        ),
        Chapter(
            "parity",
            "1",
            "parity 1, a second model, is added meanwhile beside digits, on every device.",
            Status.COMPLETED,
            ("completed",),
            first_install=True,
        ),
    ),
    (
        Chapter(
            "digits",
            "4",
            "digits 4 fails its golden set and was published without a proof: devices refuse it.",
            Status.REFUSED,
            ("refused_by_devices",),
            skip_proof=True,
        ),
    ),
)
STORY: Final[tuple[Chapter, ...]] = tuple(chapter for act in ACTS for chapter in act)

Report = Callable[[str], None]
PlanOf = Callable[[Chapter], RolloutSpec]


def models_of(chapters: Sequence[Chapter]) -> tuple[str, ...]:
    """The models of the chapters, in the order of their first ones."""
    return tuple(dict.fromkeys(chapter.model for chapter in chapters))


def good_releases(chapters: Sequence[Chapter]) -> Mapping[str, str]:
    """The last release of each model whose rollout must complete."""
    return {chapter.model: chapter.release for chapter in chapters if chapter.is_good}


def waves_of(chapter: Chapter, devices: int) -> tuple[WaveSpec, ...]:
    """1 %, 10 % and 100 % of the fleet. A small fleet has a larger first wave."""
    least = next((p for p in range(1, 100) if math.ceil(devices * p / 100) >= FIRST_WAVE), 100)
    first = 100.0 if chapter.first_install else float(least)
    return tuple(WaveSpec(percent=share) for share in sorted({first, max(first, 10.0), 100.0}))


def plan_of(chapter: Chapter, devices: int) -> RolloutSpec:
    """The plan of the chapter's rollout. ``devices`` is the number of enrolled devices."""
    return RolloutSpec(
        model=chapter.model,
        release=chapter.release,
        waves=waves_of(chapter, devices),
        gate=GATE,
        exposure=FIRST_INSTALL if chapter.first_install else UPDATE,
        bake_s=BAKE_S if chapter.bakes else 0,
    )


class _Run:
    """The rollout of one chapter: planned and started, then observed until it ends."""

    def __init__(
        self,
        client: HubClient,
        chapter: Chapter,
        plan: RolloutSpec,
        *,
        clock: Clock,
        report: Report,
    ) -> None:
        self._chapter = chapter
        self._report = report
        self._reported = ""
        self.view: RolloutView | None = None
        rollout = client.plan(plan).id
        client.command(rollout, Verb.START)
        self._sights = watch(
            client,
            rollout,
            clock=clock,
            timeout_s=CHAPTER_TIMEOUT_S,
            through_bake=chapter.bakes,
            sleep=lambda _seconds: None,
        )

    def observe(self) -> bool:
        """Report progress. Returns whether the rollout is still open.

        Raises InternalError ``demo_failed`` after the timeout.
        """
        match next(self._sights, None):
            case Observed(view):
                self.view = view
                if (now := _milestone(view)) != self._reported:
                    self._reported = now
                    self._report(f"  {self._chapter.name}: {_line(view)}")
                if not has_ended(view, through_bake=self._chapter.bakes):
                    return True
                self._report(f"  {self._chapter.name}: {_closing(view)}")
                return False
            case NoAnswer():
                return True
            case None:
                waits = self.view.why.line if self.view else "the hub sent no view of it"
                raise InternalError(
                    "demo_failed",
                    f"{self._chapter.name} has not ended after {CHAPTER_TIMEOUT_S:g} s: {waits}",
                )


def run_act(
    client: HubClient,
    act: Act,
    plan: PlanOf,
    *,
    clock: Clock,
    report: Report,
    pause: Callable[[float], None],
) -> tuple[RolloutView, ...]:
    """Start the rollouts of the act's chapters in order, and report their progress.

    Returns the last view of each, once all have ended. Raises InternalError ``demo_failed`` after
    the timeout, and the errors of the hub.
    """
    runs: list[_Run] = []
    for chapter in act:
        report(chapter.opening)
        runs.append(_Run(client, chapter, plan(chapter), clock=clock, report=report))
    running = list(runs)
    while running := [run for run in running if run.observe()]:
        pause(POLL_EVERY_S)
    return tuple(run.view for run in runs if run.view)


def _closing(view: RolloutView) -> str:
    """The devices by outcome, as a sentence."""
    evidence = view.evidence
    match view.status:
        case Status.COMPLETED:
            away = evidence.not_begun
            baked = f" {_baked(view.bake)}" if view.bake is not None else ""
            return f"{view.exposed:,} devices run it, {away:,} are out of reach.{baked}"
        case Status.REVERTED:
            return (
                f"{view.exposed} devices ran it; {evidence.failed} rolled back on their own, "
                f"{evidence.reverted} were rolled back by the hub."
            )
        case Status.REFUSED:
            return f"{evidence.refused} devices found that it fails its golden set; none served it."
        case _:
            return f"The rollout is {view.status}."


def _baked(bake: BakeView) -> str:
    """The end of the bake, as a sentence."""
    windows = "1 window" if bake.windows == 1 else f"{bake.windows} windows"
    return f"Its bake has ended ({bake.end}) after {windows} of requests."


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
