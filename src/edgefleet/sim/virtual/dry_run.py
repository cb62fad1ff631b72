"""Dry run: predicts a plan by simulating it on a similar fleet, without faults.

The hub provides the facts of the fleet. The client runs the simulation, because the hub must not
import it. A fleet above ``DEVICES`` is scaled down in the same proportions.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from msgspec.structs import replace

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.constraints.exposure import ceiling
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import TRIAL_ENDS, Checker, Report
from edgefleet.sim.virtual.operator import THINKS_S
from edgefleet.sim.virtual.result import Result
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.scenario import (
    MODEL,
    NEW,
    ROLLOUT,
    Faults,
    Group,
    Population,
    Scenario,
    Truth,
)
from edgefleet.sim.virtual.truth import RunView

DEVICES: Final = 10_000
_BAKE_S: Final = 1.0  # simulated of the bake, which a good release passes
_NEVER_S: Final = (1e9, 1e9)


class InTrial(Checker):
    """Counts the devices in trial after each durable report: a trial may last a few seconds."""

    name: ClassVar[str] = "in_trial"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self.most = 0
        self._rows = RowSet()

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:  # noqa: ARG002
        if outcome.rollout != ROLLOUT:
            return
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._rows.add(rows)
            self.most = max(self.most, len(self._rows))
        elif outcome.kind in TRIAL_ENDS:
            self._rows.discard(rows)


class FleetToTry(Wire, frozen=True, kw_only=True):
    """The devices that the plan selects. ``offline`` is the number of offline devices.

    ``is_first``: no device runs the model, so there is no previous release.
    """

    groups: tuple[Group, ...]
    offline: int = 0
    is_first: bool = False
    interval_s: float = 60.0


class WavePrediction(Wire, frozen=True, kw_only=True):
    """One wave: its cut (including earlier waves), and when it opens and closes."""

    name: str
    cut: int
    opens_s: float
    closes_s: float | None


class Prediction(Wire, frozen=True, kw_only=True):
    """The prediction for a good release.

    ``duration_s`` is None if the rollout does not end without a person.
    """

    devices: int
    simulated: int
    waves: tuple[WavePrediction, ...]
    bytes: int  # downloaded in the whole rollout, without caches
    duration_s: float | None
    approvals: int = 0  # each is given ``approval_s`` after it is due
    approval_s: float = THINKS_S
    bake_s: float = 0.0  # after ``duration_s``
    holdback: int = 0  # devices that get the release when the bake has ended
    most_in_trial: int
    ceiling: int  # devices in trial at once that the plan allows at most
    ends: str
    text: str


def predict(
    spec: RolloutSpec, fleet: FleetToTry, manifest: ReleaseManifest, *, seed: int, now: float
) -> Prediction:
    """Simulate ``spec`` on a fleet like ``fleet``. The rollout starts at ``now``.

    Raises OperatorError if the plan is invalid.
    """
    devices = sum(group.devices for group in fleet.groups)
    groups = _scaled(fleet.groups, devices)
    simulated = sum(group.devices for group in groups)
    sizes = {one.profile: one.artifact.size_bytes for one in manifest.variants}
    largest = max(sizes.values(), default=1)
    bake_s = 0.0 if fleet.is_first else min(spec.bake_s, _BAKE_S)
    scenario = Scenario(
        title="dry run",
        fleet=Population(
            interval_s=max(1.0, fleet.interval_s),
            groups=groups,
            profiles=tuple(dict.fromkeys(group.profile for group in groups)),
            panel=0,
        ),
        release=Truth(size_bytes=largest),
        faults=Faults(offline=min(1.0, fleet.offline / max(1, devices)), offline_s=_NEVER_S),
        rollout=replace(spec, model=MODEL, release=NEW, bake_s=bake_s),
        heal_s=30 * 86_400.0,
        end_s=0.0,
    )
    run = Run(
        scenario, name="dry run", devices=simulated, seed=seed, start=now, checkers=(InTrial,)
    )
    result = run.play()
    most = max(one.most for one in run.witnesses.checkers if isinstance(one, InTrial))
    times = devices / simulated
    state = run.engine.rollout(ROLLOUT).state
    golden = manifest.golden.artifact.size_bytes
    reached = 1 - fleet.offline / max(1, devices)
    total = sum(
        group.devices * (sizes[group.profile] + golden)
        for group in fleet.groups
        if group.profile in sizes
    )
    return Prediction(
        devices=devices,
        simulated=simulated,
        waves=_waves(result, times),
        bytes=int(total * reached),
        duration_s=result.ended_s,
        approvals=len(state.approvals),
        bake_s=spec.bake_s,
        holdback=0 if state.bake is None else _times(state.bake.holdback, times),
        most_in_trial=_times(most, times),
        ceiling=ceiling(spec.exposure, devices),
        ends=result.verdict,
        text=result.text,
    )


def _scaled(groups: Sequence[Group], devices: int) -> tuple[Group, ...]:
    if devices <= DEVICES:
        return tuple(groups)
    share = DEVICES / devices
    return tuple(replace(group, devices=max(1, round(group.devices * share))) for group in groups)


def _waves(result: Result, times: float) -> tuple[WavePrediction, ...]:
    return tuple(
        WavePrediction(
            name=wave.name,
            cut=_times(wave.cut, times),
            opens_s=wave.opened_s,
            closes_s=wave.closed_s,
        )
        for wave in result.waves
    )


def _times(count: int, times: float) -> int:
    return round(count * times)


def group_devices(devices: Sequence[tuple[str, dict[str, str]]]) -> tuple[Group, ...]:
    """Group devices with equal (profile, labels)."""
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    for profile, labels in devices:
        key = (profile, tuple(sorted(labels.items())))
        counts[key] = counts.get(key, 0) + 1
    return tuple(
        Group(profile=profile, labels=dict(labels), devices=count)
        for (profile, labels), count in counts.items()
    )
