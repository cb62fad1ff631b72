"""Sites that go dark, on the real engine. Part of ``gate.py``.

Devices are a model under the engine of a MemoryHub, as in ``gate_fleets``: one that is admitted
confirms after one to two minutes, in steps of ten seconds. Each device checks in once a minute at
its own second. *fast*: a device in trial checks in every ten seconds; *slow*: all others do.
*dark*: one of the sites has no power for four hours from a random time in the rollout on, and the
release is good. *bricks*: the release bricks the hardware of one site, and the sites are fine. A
rollout ends *back*, *part* (taken back from one site, and halted), *completed* or *open* (none of
these after two days). Both *back* and *part* are caught. *before* is the same gate without a look
at sites: silence is judged by its limit alone.
"""

import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Final

import numpy as np
from cells import Found, Keys
from gate_fleets import STEP_S, _outcome

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import GateSpec, Rollback, RolloutSpec, SiteComparison, Status
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.evidence.site_watch import SiteWatch
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.strata_of_plan import watched
from edgefleet.testing import MemoryHub, fake_manifest

SEEDS: Final = int(os.environ.get("BENCH_SITES_SEEDS", "100"))
FLEETS: Final = {300: 1.0, 1000: 1.0, 10_000: 0.25}  # devices: share of the seeds
CHECK_IN_STEPS: Final = 6  # once a minute
DARK_WITHIN_S: Final = {300: 2300.0, 1000: 3000.0, 10_000: 3600.0}  # of the start
MOST_S: Final = 2 * 86_400.0
RETURNS_AFTER_S: Final = 4 * 3600.0


@dataclass(frozen=True)
class Case:
    """One rollout. Site 0 is the one that goes dark, or that the release bricks."""

    devices: int
    sites: int
    is_bad: bool = False  # the release bricks site 0
    bricks: float = 1.0  # share of its devices that the release bricks
    checks_in: str = ""  # "fast" or "slow"; see above
    before: bool = False  # without a look at sites


@dataclass
class End:
    said: str
    bricked: int
    dark_trials: int  # devices in trial at the site when it went dark
    hours: float


class Unwatched(SiteWatch):
    """No comparison by site: every silent device counts at once."""

    def observe(self, *_: Any) -> None:
        return None

    def are_open(self, rows: Rows, fleet: Fleet) -> Mask:  # noqa: ARG002
        return np.zeros(len(rows), np.bool_)

    def compare(self, *_: Any) -> SiteComparison:
        return SiteComparison()


class World:
    """The devices of one case under a MemoryHub."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.rng = np.random.default_rng(seed)
        self.hub = hub = MemoryHub(now=0.0, offline_after_s=180.0)
        for number in range(case.devices):
            hub.add_device(f"{seed}-{number}", labels={"site": f"s{number % case.sites}"})
        hub.add_release(fake_manifest("m", "2", ("generic_x86",), now=0.0))
        rows = np.arange(case.devices)
        self.at_site = rows % case.sites == 0
        self.phase = self.rng.integers(0, CHECK_IN_STEPS, case.devices)
        self.dead = np.zeros(case.devices, np.bool_)
        self.coming: dict[int, list[int]] = {}
        self.step = 0
        spread = DARK_WITHIN_S[case.devices]
        self.dark_from = np.inf if case.is_bad else 600.0 + self.rng.uniform(0.0, spread)
        self.dark_trials = 0

    @property
    def dark(self) -> bool:
        return self.dark_from <= self.hub.now < self.dark_from + RETURNS_AFTER_S

    def run(self) -> End:
        hub = self.hub
        while hub.now < 600:  # the hub learns which devices are there
            self._pass(None)
        gate = GateSpec(rollback=Rollback.ALL if self.case.before else Rollback.PART)
        spec = RolloutSpec(model="m", release="2", gate=gate, bake_s=0)
        rollout = hub.start(spec, salt=int(self.rng.integers(1 << 63)))
        active = hub.engine.rollout(rollout)
        if self.case.before:
            active.sites = Unwatched(active.ledger, watched(spec))
        began = hub.now
        while hub.now - began < MOST_S:
            was_dark = self.dark
            self._pass(active)
            if self.dark and not was_dark:
                trial = active.ledger.rows(DeviceStanding.TRIAL)
                self.dark_trials = int(np.count_nonzero(self.at_site[trial]))
            self._start(active)
            self._report(active)
            hub.evaluate()
            status = active.state.status
            if status is not Status.RUNNING:
                said = {Status.COMPLETED: "completed", Status.HALTED: "part"}.get(status, "back")
                break
        else:
            said = "open"
        return End(said, int(self.dead.sum()), self.dark_trials, (hub.now - began) / 3600)

    def _pass(self, active: ActiveRollout | None) -> None:
        self.step += 1
        self.hub.now = self.step * STEP_S
        heard = self.phase == self.step % CHECK_IN_STEPS
        if self.case.checks_in and active is not None:
            in_trial = active.ledger.standings(np.arange(len(heard))) == DeviceStanding.TRIAL
            heard |= in_trial if self.case.checks_in == "fast" else ~in_trial
        heard &= ~self._is_off
        self.hub.engine.fleet.digest_heartbeats(np.flatnonzero(heard), self.hub.now)

    @property
    def _is_off(self) -> np.ndarray:
        return self.dead | self.at_site if self.dark else self.dead

    def _start(self, active: ActiveRollout) -> None:
        rows = active.members()
        rows = rows[active.ledger.standings(rows) == DeviceStanding.NONE]
        rows = rows[~self._is_off[rows]]
        if not len(rows):
            return
        asking = np.sort(self.rng.permutation(rows)[: max(64, 2 * active.in_trial)])
        start = _outcome(active, OutcomeKind.TRIAL_STARTED)
        engine = self.hub.engine
        begun = asking[engine.admission.admit_all(active, asking, start, self.hub.now)]
        for row in self.rng.permutation(begun).tolist():
            engine.intake.record(row, start, self.hub.now)
            engine.fleet.digest_heartbeats(np.array([row]), self.hub.now)
            bricked = self.case.is_bad and self.at_site[row]
            if bricked and self.rng.random() < self.case.bricks:
                self.dead[row] = True
                continue
            due = self.step + max(1, round(self.rng.uniform(60, 120) / STEP_S))
            self.coming.setdefault(due, []).append(row)

    def _report(self, active: ActiveRollout) -> None:
        done = _outcome(active, OutcomeKind.CONFIRMED)
        for row in self.coming.pop(self.step, ()):
            if self._is_off[row]:  # it confirms once the power is back
                self.coming.setdefault(self.step + CHECK_IN_STEPS, []).append(row)
                continue
            self.hub.engine.intake.record(row, done, self.hub.now)
            self.hub.engine.fleet.digest_heartbeats(np.array([row]), self.hub.now)


def play(case: Case, seed: int) -> End:
    return World(case, seed).run()


def told(ends: list[End]) -> dict[str, Any]:
    said = Counter(end.said for end in ends)
    shares = {name: round(said[name] / len(ends), 4) for name in ("back", "part", "completed")}
    return {
        **shares,
        "open": said["open"],
        "caught": round((said["back"] + said["part"]) / len(ends), 4),
        "median_bricked": median(end.bricked for end in ends),
        "p95_bricked": float(np.quantile([end.bricked for end in ends], 0.95)),
        "median_dark_in_trial": median(end.dark_trials for end in ends),
        "median_hours": round(median(end.hours for end in ends), 2),
        "rollouts": len(ends),
    }


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for devices in FLEETS:
        for sites in (5, 3):
            for checks_in in ("", "fast", "slow"):
                name = "_".join(filter(None, (str(devices), f"1of{sites}", checks_in)))
                found[f"dark_{name}"] = Case(devices, sites, checks_in=checks_in)
                found[f"bricks_{name}"] = Case(devices, sites, is_bad=True, checks_in=checks_in)
    return found


def measure(case: Case, count: int) -> dict[str, Any]:
    found = told([play(case, seed) for seed in range(count)])
    before = told([play(replace(case, before=True), seed) for seed in range(count // 2)])
    return {**found, "before": {key: before[key] for key in ("back", "median_bricked")}}


KEYS: Keys = {
    "site_dark": {
        name: partial(measure, case, max(2, round(SEEDS * FLEETS[case.devices])))
        for name, case in cases().items()
    }
}


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    return [
        f"site_dark {name}"
        for name, one in result.get("site_dark", {}).items()
        if (one["back"] > 0.02 if name.startswith("dark") else one["caught"] < 0.95)
    ]
