"""Whole rollouts on the real engine, in fleets of any size. Part of ``gate.py``.

The engine admits, counts, judges, extends and reverts. Devices are a model: one that is admitted
fails within a minute or confirms after one to two minutes; one that is away sends nothing. Time
advances in steps of ten seconds. A rollout ends *back* (rolled back), *person* (it waits for one),
*completed*, or *stuck* (none of these after a week). Bounds are those of docs/gate.md.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from cells import Cell, Found, Keys

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, RolloutSpec, Status
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import gate, small_fleet
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.testing import MemoryHub, fake_manifest

SEEDS = int(os.environ.get("BENCH_FLEETS_SEEDS", "100"))
STEP_S = 10.0
HEARTBEAT_S = 60.0
WEEK_S = 7 * 86_400.0
SMALL = (3, 5, 8, 12, 30)


@dataclass
class Case:
    """One rollout of one release over one fleet."""

    devices: int
    fails: float = 0.0
    off: int | None = None  # the device that is away all the time
    off_after_s: float = -600.0  # from the start of the rollout
    late_from: float = 1.0  # share of the fleet after which every device that starts fails
    away: float = 0.0  # share that is away at the start and returns singly
    restart_s: float = math.inf  # between two restarts of the hub, which loses all soft state
    spec: GateSpec = field(default_factory=GateSpec)


@dataclass
class End:
    said: str
    asked: bool
    exposed: int
    hours: float
    late: int = 0  # devices that started when all failed


def play(case: Case, seed: int) -> End:
    return World(case, seed).run()


class World:
    """The devices of one case under a MemoryHub."""

    def __init__(self, case: Case, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.case = case
        self.hub = hub = MemoryHub(now=0.0, offline_after_s=180.0, gate=self.gate)
        self.known = self.profiles()
        for number, profile in enumerate(self.known):
            hub.add_device(f"{seed}-{number}", profile)
        self.away = np.zeros(case.devices, np.bool_)
        away = self.rng.permutation(case.devices)[: round(case.away * case.devices)]
        self.away[away] = True
        self.returning = away.tolist()
        if case.off is not None and case.off_after_s <= 0:
            self.away[case.off] = True
        self.coming: dict[int, list[tuple[int, OutcomeKind]]] = {}
        self.step = 0
        self.heard_at = -HEARTBEAT_S
        self.restarted_at = 0.0
        self.asked = False
        self.late = 0

    def profiles(self) -> list[str]:
        """The profile of each device."""
        return ["generic_x86"] * self.case.devices

    def fails(self, row: int) -> bool:  # noqa: ARG002 - of a device of one class
        """Whether the trial of the device, which has just started, fails."""
        if self.active.ledger.exposed > self.case.late_from * self.case.devices:
            self.late += 1
            return True
        return bool(self.rng.random() < self.case.fails)

    def run(self) -> End:
        for _ in range(30):  # the hub learns who is there
            self._heartbeats()
            self._pass(1)
        return self.roll_out("2", self.case.spec)

    def gate(self, evidence: Evidence, spec: GateSpec, **looks: Any) -> Judgement:
        """The gate of the hub."""
        return gate.judge(evidence, spec, **looks)

    def serve(self, active: ActiveRollout) -> None:
        """Report the requests that devices served in this step. Here they serve none."""

    def roll_out(self, release: str, gate_spec: GateSpec) -> End:
        """One rollout, to its end."""
        hub = self.hub
        hub.add_release(fake_manifest("m", release, set(self.known), now=0.0))
        spec = RolloutSpec(model="m", release=release, gate=gate_spec)
        salt = int(self.rng.integers(1 << 63))
        rollout = hub.start(spec, salt=salt)
        active = self.active = hub.engine.rollout(rollout)
        began = hub.now
        while hub.now - began < WEEK_S:
            if self.case.off is not None and hub.now - began >= self.case.off_after_s:
                self.away[self.case.off] = True
            self._heartbeats()
            self._start(active)
            self._pass(1)
            self._report(active)
            self.serve(active)
            if hub.now - self.restarted_at >= self.case.restart_s:
                hub.restart()
                self.restarted_at = hub.now
                active = hub.engine.rollout(rollout)
            hub.evaluate()
            state = active.state
            wave = state.open_wave
            waits = wave is not None and wave.judgement is not None
            waits = waits and wave.judgement.reason == gate.INCONCLUSIVE
            self.asked |= waits
            if state.status is not Status.RUNNING:
                said = "completed" if state.status is Status.COMPLETED else "back"
                return End(
                    said, self.asked, active.ledger.exposed, (hub.now - began) / 3600, self.late
                )
            if not self.coming and waits and not self._one_returns():
                return End("person", True, active.ledger.exposed, (hub.now - began) / 3600)
        return End("stuck", self.asked, active.ledger.exposed, WEEK_S / 3600)

    def _pass(self, steps: int) -> None:
        self.step += steps
        self.hub.now = self.step * STEP_S

    def _one_returns(self) -> bool:
        """The next device that was away returns. False if none is left."""
        if not self.returning:
            return False
        self.away[self.returning.pop()] = False
        self._heartbeats(at_once=True)
        return True

    def _heartbeats(self, *, at_once: bool = False) -> None:
        if at_once or self.hub.now - self.heard_at >= HEARTBEAT_S:
            self.heard_at = self.hub.now
            self.hub.engine.fleet.digest_heartbeats(np.flatnonzero(~self.away), self.hub.now)

    def _start(self, active: ActiveRollout) -> None:
        """Waiting devices ask to start in a random order; the engine admits some."""
        rows = active.members()
        rows = rows[active.ledger.standings(rows) == DeviceStanding.NONE]
        rows = rows[~self.away[rows]]
        if not len(rows):
            return
        asking = np.sort(self.rng.permutation(rows)[: max(64, 2 * active.in_trial)])
        start = _outcome(active, OutcomeKind.TRIAL_STARTED)
        engine = self.hub.engine
        begun = asking[engine.admission.admit_all(active, asking, start, self.hub.now)]
        order = self.rng.permutation(begun)
        for row in order.tolist():
            self._record(row, start)
            bad = self.fails(row)
            after = self.rng.uniform(5, 60) if bad else self.rng.uniform(60, 120)
            kind = OutcomeKind.TRIAL_FAILED if bad else OutcomeKind.CONFIRMED
            due = self.step + max(1, round(after / STEP_S))
            self.coming.setdefault(due, []).append((row, kind))

    def _report(self, active: ActiveRollout) -> None:
        for row, kind in self.coming.pop(self.step, ()):
            if not self.away[row]:
                self._record(row, _outcome(active, kind))

    def _record(self, row: int, outcome: Outcome) -> None:
        """Store the outcome, if a restart is to come, and count it."""
        if self.case.restart_s < math.inf:
            self.hub.record(row, outcome)
        else:
            self.hub.engine.intake.record(row, outcome, self.hub.now)


def _outcome(active: ActiveRollout, kind: OutcomeKind) -> Outcome:
    return Outcome(
        id=kind.value, rollout=active.state.id, release=active.state.spec.release, kind=kind,
        at=0.0, reason="",
    )  # fmt: skip


def told(ends: list[End]) -> dict[str, Any]:
    said = Counter(end.said for end in ends)
    return {
        **{name: round(said[name] / len(ends), 4) for name in ("back", "person", "completed")},
        "stuck": said["stuck"],
        "asked": round(sum(end.asked for end in ends) / len(ends), 4),
        "median_exposed": median(end.exposed for end in ends),
        "p95_exposed": float(np.quantile([end.exposed for end in ends], 0.95)),
        "median_hours": round(median(end.hours for end in ends), 2),
        "rollouts": len(ends),
    }


def many(case: Case, count: int = SEEDS, first: int = 0) -> dict[str, Any]:
    return told([play(case, first + seed) for seed in range(count)])


ASK = GateSpec(ask_p=1.0)


def late30(devices: int, count: int) -> dict[str, Any]:
    """All devices that start after 30 % of the fleet fail. ``gate.py`` asks its model the same."""
    ends = [play(Case(devices, late_from=0.3), seed) for seed in range(count)]
    return {
        "median": median(end.late for end in ends),
        "worst": max(end.late for end in ends),
        "failed": sum(end.said == "back" for end in ends) / count,
        "seeds": count,
    }


def one_off(devices: int, count: int) -> dict[str, Any]:
    """A perfect release; any one device is off from the start or soon after."""
    return told([
        play(Case(devices, off=seed % devices, off_after_s=(-600.0, 25.0)[seed % 2]), seed)
        for seed in range(count)
    ])  # fmt: skip


def half_exact(devices: int) -> dict[str, Any]:
    """Half of the devices fail: the share of completed rollouts by the programme of the plan."""
    needed = small_fleet.boundary((small_fleet.Plan(0, devices),), 0.05, 0.03)
    return {
        "completed": round(1 - small_fleet.total_spent(needed, 0.5), 4),
        "completed_ask": round(0.5**devices, 4),
    }


def small() -> Mapping[str, Cell]:
    """Fleets of 3 to 30: any one device off; half or 1 % of the devices fail, also with ask."""
    found: dict[str, Cell] = {}
    for devices in SMALL:
        found[f"{devices}_one_off"] = partial(one_off, devices, 5 * SEEDS)
        found[f"{devices}_half_exact"] = partial(half_exact, devices)
        found[f"{devices}_half"] = partial(many, Case(devices, fails=0.5), 5 * SEEDS)
        found[f"{devices}_half_ask"] = partial(many, Case(devices, fails=0.5, spec=ASK), 5 * SEEDS)
        found[f"{devices}_1_ask"] = partial(many, Case(devices, fails=0.01, spec=ASK), 5 * SEEDS)
    return found


def edge5() -> Mapping[str, Cell]:
    """Exactly at the limit. With devices away, a person never acts, and they return singly."""
    return {
        **{f"of{devices}": partial(many, Case(devices, fails=0.05)) for devices in (30, 300, 1000)},
        **{
            f"of{devices}_away{away}": partial(
                many, Case(devices, fails=0.05, away=away / 100, spec=ASK), 2 * SEEDS
            )
            for devices in (40, 300)
            for away in (30, 90)
        },
    }


def restarted(devices: int, fails: float, count: int) -> dict[str, Any]:
    """The hub restarts every 90 s. *Calm* are the same seeds without a restart."""
    calm = many(Case(devices, fails=fails), count)
    shown = ("back", "median_exposed")
    found = many(Case(devices, fails=fails, restart_s=90.0), count)
    return {**found, "calm": {key: calm[key] for key in shown}}


KEYS: Keys = {
    "late30_engine": {
        "1000": partial(late30, 1000, SEEDS),
        "10000": partial(late30, 10_000, max(1, SEEDS // 4)),
    },
    "restart": {
        "fails5": partial(restarted, 300, 0.05, 2 * SEEDS),
        "fails5_of30": partial(restarted, 30, 0.05, 6 * SEEDS),
        "fails50": partial(restarted, 300, 0.5, SEEDS),
    },
    "small": small(),
    "waits": {f"fails{rate}": partial(many, Case(1000, fails=rate / 100)) for rate in (1, 2, 3)},
    "bad10": {f"of{n}": partial(many, Case(n, fails=0.1)) for n in (100, 300, 1000, 10_000)},
    "edge5": edge5(),
    "near": {f"fails{rate}": partial(many, Case(1000, fails=rate / 100)) for rate in (6, 8)},
}


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    bounds: list[tuple[str, bool]] = []
    if seen := result.get("small"):
        for devices in SMALL:
            one = seen[f"{devices}_one_off"]
            bounds.append((f"{devices} one off", one["stuck"] == 0 and one["asked"] == 0))
            exact, half = seen[f"{devices}_half_exact"], seen[f"{devices}_half"]
            bounds.append((f"{devices} half", _agree(half, exact["completed"])))
            if devices < 8:
                ask = seen[f"{devices}_half_ask"]
                bounds.append((f"{devices} ask", _agree(ask, exact["completed_ask"])))
        most = {8: 0.11, 12: 0.10, 30: 0.02}
        bounds += [(f"{n} exact", seen[f"{n}_half_exact"]["completed"] <= most[n]) for n in most]
        bounds += [
            (f"{n} exact with ask", round(seen[f"{n}_half_exact"]["completed_ask"], 2) <= share)
            for n, share in ((3, 0.13), (5, 0.03))
        ]
    if seen := result.get("waits"):
        bounds += [(f"waits {key}", one["asked"] <= 0.01) for key, one in seen.items()]
    if seen := result.get("bad10"):
        thousand, ten = seen["of1000"], seen["of10000"]
        bounds += [
            ("bad10", thousand["back"] >= 0.95 and thousand["median_exposed"] <= 400),
            ("bad10_10k", ten["back"] >= 0.99 and ten["median_exposed"] <= 600),
        ]
    if seen := result.get("edge5"):
        bounds += [(f"edge5 {key}", one["back"] <= 0.03) for key, one in seen.items()]
    if seen := result.get("restart"):
        found = seen["fails50"]
        bounds += [
            (f"restart {key}", seen[key]["back"] <= 0.03) for key in ("fails5", "fails5_of30")
        ]
        bounds += [
            ("restart fails50", found["back"] == 1),
            ("restart exposed", found["median_exposed"] <= found["calm"]["median_exposed"] + 10),
        ]
    return [name for name, holds in bounds if not holds]


def _agree(seen: dict[str, Any], exact: float) -> bool:
    """True if the engine's share of completed rollouts is the exact one, up to 3.5 errors."""
    error = (exact * (1 - exact) / seen["rollouts"]) ** 0.5
    return abs(seen["completed"] - exact) <= 3.5 * error + 1e-3
