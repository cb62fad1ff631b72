"""The result of a run: its verdict, waves, faults, cost and curve."""

import resource
from collections.abc import Sequence

import numpy as np

from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.observer import Violation, Witnesses
from edgefleet.sim.virtual.scenario import ROLLOUT, Faults


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


class Result(Wire, frozen=True, kw_only=True):
    """One run. Equal seeds and code give an equal ``trace_digest`` on every machine."""

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


def result_of(
    devices: Devices,
    witnesses: Witnesses,
    *,
    name: str,
    seed: int,
    finished: bool,
    person: str,
    curve: Sequence[Point],
    wall_s: float,
    cpu_s: float,
) -> Result:
    """The result up to now. Call it during or after a run."""
    environment = devices.environment
    hub, facts, start = environment.hub, environment.facts, environment.start
    view = hub.engine.view(ROLLOUT, environment.now)
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
        verdict=view.status.value,
        reason=view.reason,
        text=view.text,
        person=person,
        waves=_waves(view, start),
        exposed=view.exposed,
        ended_s=None if view.ended_at is None else view.ended_at - start,
        faults=dict(sorted(faults.items())),
        trace_digest=hub.trace.digest(),
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
        "flapping": np.isfinite(facts.up_s),
        "thin": facts.thin,
        "wrong_clocks": facts.skew != 0,
        "old_agents": facts.old,
    }
    return {kind: int(has.sum()) for kind, has in columns.items() if getattr(faults, kind)}
