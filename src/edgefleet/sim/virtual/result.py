"""The result of a run: its verdict, waves, faults, cost and curve."""

import resource
from collections.abc import Mapping, Sequence

import numpy as np

from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.observer import Violation, Witnesses
from edgefleet.sim.virtual.scenario import Faults


class Point(Wire, frozen=True, kw_only=True):
    """The rollout at one time."""

    at_s: float
    wave: int
    cut: int
    exposed: int
    in_trial: int
    healthy: int
    failed: int


class WaveResult(Wire, frozen=True, kw_only=True):
    """The outcome of one wave."""

    name: str
    cut: int
    opened_s: float
    closed_s: float | None
    verdict: str
    reason: str


class RolloutResult(Wire, frozen=True, kw_only=True):
    """One rollout of a run."""

    id: str
    model: str
    release: str
    verdict: str
    reason: str
    text: str
    person: str  # the verb with which a person ended the rollout, else empty
    waves: tuple[WaveResult, ...]
    exposed: int
    ended_s: float | None
    curve: tuple[Point, ...] = ()


class Result(Wire, frozen=True, kw_only=True):
    """One run. Equal seeds and code give an equal ``trace_digest`` on every machine.

    ``rollouts`` are all rollouts of the run, in the order of the scenario. The fields of a
    rollout in this record itself are those of the first one; only ``person`` is of any of them.
    """

    scenario: str
    devices: int
    seed: int
    events: int  # queue entries and check-ins of idle devices
    events_per_s: int
    steps: int  # of agent cores, counted for each device
    stepped: int  # counted once for a group of equal devices
    heartbeats: int  # of idle devices
    reports: int  # outcomes that became durable
    wall_s: float
    cpu_s: float  # CPU time of this process
    virtual_s: float
    peak_rss_mib: int
    violations: int
    violated: tuple[Violation, ...]
    by_checker: dict[str, int]
    finished: bool
    verdict: str
    reason: str
    text: str
    person: str  # the verb with which a person ended the rollout, else empty
    waves: tuple[WaveResult, ...]
    exposed: int
    ended_s: float | None
    faults: dict[str, int]
    trace_digest: str
    curve: tuple[Point, ...] = ()
    rollouts: tuple[RolloutResult, ...] = ()


def result_of(
    devices: Devices,
    witnesses: Witnesses,
    *,
    name: str,
    seed: int,
    finished: bool,
    persons: Mapping[str, str],
    curves: Mapping[str, Sequence[Point]],
    wall_s: float,
    cpu_s: float,
) -> Result:
    """The result up to now. Call it during or after a run.

    ``persons`` are the verbs with which a person ended a rollout, by rollout, as are ``curves``.
    """
    environment = devices.environment
    hub, facts, start = environment.hub, environment.facts, environment.start
    planned = {state.id for state in hub.engine.states()}
    rollouts = tuple(
        _rollout(
            hub.engine.view(rollout, environment.now),
            start,
            person=persons.get(rollout, ""),
            curve=curves.get(rollout, ()),
        )
        for rollout in environment.scenario.rollouts.values()
        if rollout in planned
    )
    first = rollouts[0]
    heartbeats = devices.idle.heartbeats
    events = devices.events + heartbeats
    faults = {**environment.suffered, **_marred(facts, environment.scenario.faults, start)}
    return Result(
        scenario=name,
        devices=facts.devices,
        seed=seed,
        events=events,
        events_per_s=int(events / wall_s),
        steps=devices.steps,
        stepped=devices.stepped,
        heartbeats=heartbeats,
        reports=len(hub.store),
        wall_s=round(wall_s, 2),
        cpu_s=round(cpu_s, 2),
        virtual_s=environment.now - start,
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        violations=witnesses.count,
        violated=tuple(witnesses.violations),
        by_checker=dict(witnesses.by_checker),
        finished=finished,
        verdict=first.verdict,
        reason=first.reason,
        text=first.text,
        person=next(iter(persons.values()), ""),
        waves=first.waves,
        exposed=first.exposed,
        ended_s=first.ended_s,
        faults=dict(sorted(faults.items())),
        trace_digest=hub.trace.digest(),
        curve=first.curve,
        rollouts=rollouts,
    )


def _rollout(
    view: RolloutView, start: float, *, person: str, curve: Sequence[Point]
) -> RolloutResult:
    return RolloutResult(
        id=view.id,
        model=view.model,
        release=view.release,
        verdict=view.status.value,
        reason=view.reason,
        text=view.text,
        person=person,
        waves=_waves(view, start),
        exposed=view.exposed,
        ended_s=None if view.ended_at is None else view.ended_at - start,
        curve=tuple(curve),
    )


def _waves(view: RolloutView, start: float) -> tuple[WaveResult, ...]:
    return tuple(
        WaveResult(
            name=wave.name or f"{wave.percent:g} %",
            cut=wave.cut or 0,
            opened_s=wave.opened_at - start,
            closed_s=None if wave.closed_at is None else wave.closed_at - start,
            verdict=wave.judgement.verdict.value if wave.judgement else "",
            reason=wave.judgement.reason if wave.judgement else "",
        )
        for wave in view.waves
        if wave.opened_at is not None
    )


def _marred(facts: DeviceFaults, faults: Faults, start: float) -> dict[str, int]:
    """Number of devices with each permanent fault of the scenario."""
    columns: dict[str, Mask] = {
        "offline": facts.away_until > start,
        "dark_sites": facts.dark[1] > start,
        "flapping": np.isfinite(facts.up_s),
        "thin": facts.thin,
        "wrong_clocks": facts.skew != 0,
        "old_agents": facts.old,
    }
    return {kind: int(has.sum()) for kind, has in columns.items() if getattr(faults, kind)}
