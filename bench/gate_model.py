"""A model of devices that start a release, and of their telemetry. ``gate.py`` uses it.

The ledger, the gate, the exposure limit, the cohorts with their e-processes and the cuts are the
engine's own code. A device is a row of the ledger, and time advances in steps of ten seconds.
"""

import math
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from edgefleet.agent.quality_window import compare
from edgefleet.agent.state import QualityWindow
from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Outcome, OutcomeKind, Sketches, Telemetry
from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import (
    Cohort,
    Evidence,
    ExposureSpec,
    GateSpec,
    LateFailures,
    Verdict,
)
from edgefleet.rollout.admission.control import allowed
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.constraints.overdue import Overdue
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.activations import Course
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.detector import Grid
from edgefleet.rollout.evidence.late import Late
from edgefleet.rollout.evidence.ledger import Ledger
from edgefleet.rollout.evidence.sequential import exact_p_value
from edgefleet.rollout.evidence.tally import Tally
from edgefleet.rollout.fleet import cut

PERCENTS = (1.0, 10.0, 100.0)
PAIRS = 1_000  # most pairs compared in one rollout: a limit of the model, not of the engine
STEP_S = 10.0
FAIL_STEPS = 6  # a failure is known within a minute
OVERDUE_S = 180.0  # three intervals between two check-ins
HEALTHY_STEPS = (7, 12)  # a confirmation after one to two minutes
SCORE_STEPS = (12, 24)  # a full window of requests after two to four minutes
RETURN_S = 7200.0  # devices that were away return together after this time
SPEC = GateSpec()
EXPOSURE = ExposureSpec()
NOBODY = np.zeros(0, np.int64)
STARTED, CONFIRMED, FAILED = (
    Outcome(id="", rollout="r", release="2", kind=kind, at=0.0)
    for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED)
)


def _no_classes(key: str, values: Any) -> Any:
    raise AssertionError(key, values)


@dataclass
class End:
    """The end of one rollout. ``said`` is ``passed``, ``waits`` or the reason of its failure."""

    said: str
    exposed: int
    finished: int
    minutes: float
    late: int = 0  # devices that started when the release was worse

    @property
    def failed(self) -> bool:
        return self.said not in ("passed", "waits")


@dataclass
class World:
    """The behaviour of a release, and one rollout of it with one gate."""

    rng: np.random.Generator
    fleet: int
    gate: str
    fails: float = 0.0
    bricks: float = 0.0
    quality: "Quality | None" = None
    step: int = 0
    healthy: int = 0
    failed: int = 0
    silent: int = 0
    overdue: int = 0  # of which silent
    in_trial: int = 0  # of which overdue
    exposed: int = 0
    moved_at: float = 0.0  # last start of a device: patience counts from then
    late_from: float = 1.0  # share of the fleet after which the devices that start are worse
    late_fails: float = 0.0
    late_bricks: float = 0.0
    away: float = 0.0  # share of the fleet that returns together, after RETURN_S without a start
    exposure: ExposureSpec = EXPOSURE
    detector: bool = True  # with the detector of late failures and the brake, and with episodes
    looks: int = 0
    looked: int = 0
    handful: int = 0  # while a wave is open by handfuls
    late_begun: int = 0  # devices that started when they were worse
    active: Any = field(init=False)  # the attributes of a rollout that admission reads
    coming: dict[int, list[list[Any]]] = field(default_factory=dict)
    """step -> rows that report healthy, failed, silent, overdue"""

    def __post_init__(self) -> None:
        self.here = self.fleet - int(self.away * self.fleet)  # devices that are not away
        grid = Grid(self.exposure.first, exposure.ceiling(self.exposure, self.fleet), self.fleet)
        pause_s = SPEC.confirm_after_s + SPEC.silence_s if self.detector else math.inf
        ledger = Ledger(1, Course(grid, 0.0, pause_s))
        late: Any = SimpleNamespace(brakes=False)
        if self.detector:
            late = Late(ledger)
            late.arrange(SPEC.max_error_rate)
        self.active = SimpleNamespace(
            state=SimpleNamespace(
                spec=SimpleNamespace(gate=SPEC, exposure=self.exposure),
                failures_allowed=SPEC.max_error_rate,
            ),
            ledger=ledger, late=late, overdue=Overdue(), devices=self.fleet, in_trial=0,
            holds_late=False, dark=NOBODY, tally=Tally((), 0, ledger, _no_classes, tuple),
        )  # fmt: skip
        self.silent_rows: list[Any] = []

    def run(self) -> End:
        for wave, percent in enumerate(PERCENTS, 1):
            end = self._wave(wave, cut.wanted(percent, self.here))
            if end is not None:
                return self._end(end)
        if self.here < self.fleet:
            self.step += int(RETURN_S / STEP_S)
            end = self._wave(len(PERCENTS), self.fleet)
            if end is not None:
                return self._end(end)
        return self._end("passed")

    def _wave(self, wave: int, size: int) -> str | None:
        opened, before, whole = self.step * STEP_S, None, size
        if self.handful:
            size = min(whole, self.exposed + self.handful)
        if whole <= self.here:  # devices that return come without a new wave
            order = self.active.ledger.activations
            order.arrange(replace(order.course, opened=(*order.course.opened, opened)))
        while True:
            self._start(size)
            self.step += 1
            self._hear()
            if self.quality is not None:
                self.quality.hear(self.step, self.healthy)
            unheard = size - self.exposed + self.in_trial - self.silent
            if self.gate != "ours":
                end = naive(self, size) if self.gate == "naive" else peeking(self)
                if end is not None:
                    return end
                if unheard == 0:
                    return (
                        None
                        if rate(self) <= SPEC.max_error_rate or self.gate == "naive"
                        else "waits"
                    )
                continue
            said = gate.judge(
                self._evidence(wave, size), SPEC, opened_at=max(opened, self.moved_at),
                before=before, now=self.step * STEP_S,
            )  # fmt: skip
            if said.interim:
                self.looks, self.looked = said.interim, self.healthy + self.failed + self.silent
            if said.verdict is Verdict.FAIL:
                return said.reason
            if said.verdict is Verdict.PASS and not self.handful:
                return None
            if said.verdict is Verdict.PASS:
                self.handful, size, before = 0, whole, None
                continue
            if said.reason == gate.EXTENDS and not self.handful:
                self.handful = exposure.handful(self.exposure, self.fleet)
                return None
            if said.reason == gate.EXTENDS and 2 * unheard <= self.handful:
                size = min(whole, size + self.handful - unheard)
                if size == whole:
                    self.handful, before = 0, None
                continue
            if said.reason == gate.INCONCLUSIVE and unheard == 0:
                return "waits"
            if before is None or before.reason != said.reason:
                before = said

    def _start(self, size: int) -> None:
        room = size - self.exposed
        now = self.step * STEP_S
        if self.gate == "ours":
            self.active.in_trial = self.in_trial
            room = min(room, allowed(self.active, now) - self.in_trial)
        if room <= 0:
            return
        rng, first = self.rng, self.exposed
        rows = np.arange(first, first + room)
        worse = rows >= min(self.late_from * self.fleet, self.here if self.away else self.fleet)
        bricks = rng.random(room) < np.where(worse, self.late_bricks or self.bricks, self.bricks)
        fails = rng.random(room) < np.where(worse, self.late_fails or self.fails, self.fails)
        fails &= ~bricks
        self.late_begun += int(worse.sum())
        self._come(1, rows[fails], 1, FAIL_STEPS)
        self._come(0, rows[~bricks & ~fails], *HEALTHY_STEPS)
        for kind, after_s in ((2, SPEC.silence_s), (3, OVERDUE_S)):
            self._come(kind, rows[bricks], missed := int(after_s / STEP_S) + 1, missed)
        self._record(STARTED, rows)
        self.moved_at = now
        self.exposed += room
        self.in_trial += room

    def _come(self, kind: int, rows: Any, first: int, last: int) -> None:
        """Schedule the reports of ``rows``, evenly between two steps from now."""
        if not len(rows):
            return
        later = self.rng.integers(first, last + 1, len(rows)) if last > first else None
        for step in range(first, last + 1):
            some = rows if later is None else rows[later == step]
            if len(some):
                coming = self.coming.setdefault(self.step + step, [[], [], [], []])
                coming[kind].append(some)

    def _record(self, outcome: Outcome, rows: Any) -> None:
        if self.gate == "ours":
            waves = np.zeros(len(rows), np.int16)
            self.active.ledger.record_all(rows, outcome, waves, self.step * STEP_S)

    def _hear(self) -> None:
        healthy, failed, silent, overdue = self.coming.pop(self.step, ([], [], [], []))
        for outcome, parts in ((CONFIRMED, healthy), (FAILED, failed)):
            for rows in parts:
                self._record(outcome, np.sort(rows))
        self.silent_rows += silent
        self.healthy += sum(map(len, healthy))
        self.failed += sum(map(len, failed))
        self.silent += sum(map(len, silent))
        self.overdue += sum(map(len, overdue))
        self.in_trial -= sum(map(len, healthy)) + sum(map(len, failed))
        if self.gate != "ours":
            return
        self.active.overdue.update(
            SPEC, missing=self.overdue, began=self.exposed, now=self.step * STEP_S,
            within_s=OVERDUE_S,
        )  # fmt: skip
        self.active.dark = silent_rows = self._silent()
        if self.detector:
            self.active.late.update(silent_rows)

    def _late(self) -> LateFailures:
        return self.active.late.failures(self._silent()) if self.detector else LateFailures()

    def _silent(self) -> Any:
        return np.sort(np.concatenate([NOBODY, *self.silent_rows]))

    def _evidence(self, wave: int, size: int) -> Evidence:
        seen = Evidence(
            wave=wave, cut=size, offered=size - self.exposed,
            in_trial=self.in_trial - self.silent, healthy=self.healthy,
            failed=self.failed + self.silent, silent=self.silent, exposed=self.exposed,
            late=self._late(), remaining=self.fleet - size, handful=self.handful,
            looks=self.looks, looked=self.looked,
        )  # fmt: skip
        return seen if self.quality is None else self.quality.fill(seen)

    def _end(self, said: str) -> End:
        finished = self.healthy + self.failed + self.silent
        return End(said, self.exposed, finished, self.step * STEP_S / 60, self.late_begun)


def rate(world: World) -> float:
    bad = world.failed + world.silent
    return bad / max(1, bad + world.healthy)


def naive(world: World, size: int) -> str | None:
    """The naive gate: at the end of the wave, in whole percent."""
    if world.in_trial > world.silent or world.exposed < size:
        return None
    bad = world.failed + world.silent
    if 100 * bad // size > 100 * SPEC.max_error_rate:
        return "error_rate"
    return world.quality.naive() if world.quality else None


def peeking(world: World) -> str | None:
    """The peeking gate: the exact test at 5 %, after every step."""
    bad = world.failed + world.silent
    size = bad + world.healthy
    if size >= SPEC.min_sample and exact_p_value(bad, size, SPEC.max_error_rate) <= 0.05:
        return "error_rate"
    return world.quality.peeking() if world.quality else None


METRICS = {metric.key: metric for metric in CHANGES if metric.is_on(SPEC)}


class Quality:
    """Scores of canary and control, drawn from pools. A canary reports minutes after its start."""

    def __init__(self, rng: random.Random, pools: "Pools", gate_name: str) -> None:
        self._rng = rng
        self._pools = pools
        self._gate = gate_name
        self._confirmed = 0
        self._due: dict[int, int] = {}
        self._row = 0
        self._cohorts = Cohorts()
        self._sums = {metric: [0, 0.0, 0.0] for metric in METRICS}

    def hear(self, step: int, healthy: int) -> None:
        """Add confirmed devices: each reports golden accuracy at once, and its scores later."""
        for _ in range(min(healthy, PAIRS) - min(self._confirmed, PAIRS)):
            self._accuracy()
            later = step + self._rng.randint(*SCORE_STEPS)
            self._due[later] = self._due.get(later, 0) + 1
        self._confirmed = healthy
        for _ in range(self._due.pop(step, 0)):
            self._pair()

    def fill(self, seen: Evidence) -> Evidence:
        heard = Cohort(devices=self._row // 2, requests=100 * self._row)
        return msgspec.structs.replace(
            seen, quality=self._cohorts.differences(),
            limits=self._cohorts.limits(has_previous=True), canary=heard, control=heard,
        )  # fmt: skip

    def naive(self) -> str | None:
        """The naive gate: means over all devices, in whole percent."""
        for metric, (count, total, _) in self._sums.items():
            if count and 100 * total / count >= math.floor(100 * METRICS[metric].allowed(SPEC)) + 1:
                return METRICS[metric].reason
        return None

    def peeking(self) -> str | None:
        """The peeking gate: a z-test at 5 %, after every step."""
        for metric, (count, total, squares) in self._sums.items():
            if count < 5:
                continue
            mean = total / count
            error = math.sqrt(max(1e-12, squares / count - mean * mean) / count)
            if (mean - METRICS[metric].allowed(SPEC)) / error > 1.645:
                return METRICS[metric].reason
        return None

    def _accuracy(self) -> None:
        before, after = self._rng.choice(self._pools.accuracy)
        if self._gate == "ours":
            said = Outcome(
                id="a", rollout="r", release="2", kind=OutcomeKind.CONFIRMED, at=0.0,
                accuracy=after, accuracy_before=before,
            )  # fmt: skip
            self._cohorts.confirmed(said, SPEC)
        else:
            self._sum("accuracy", before - after)

    def _pair(self) -> None:
        ours, theirs = self._rng.choice(self._pools.canary), self._rng.choice(self._pools.control)
        self._row += 2
        if self._gate == "ours":
            self._cohorts.add_control(self._row, theirs, SPEC, 512)
            self._cohorts.add_canary(self._row + 1, ours, SPEC, 512)
            return
        mine, other = ours.scores, theirs.scores
        assert mine is not None
        assert other is not None
        for metric in METRICS.values():
            if metric.scored is None:
                continue
            change, usual = metric.scored(mine), metric.scored(other)
            if change is not None and usual is not None:
                self._sum(metric.key, metric.worse_by(change - usual))

    def _sum(self, metric: str, difference: float) -> None:
        sums = self._sums[metric]
        sums[0] += 1
        sums[1] += difference
        sums[2] += difference * difference


@dataclass(frozen=True)
class Traffic:
    """The distribution of the requests of one release."""

    slower: float = 1.0
    confidence: float = 0.85
    errors: float = 0.002
    class_shift: float = 0.0  # share of requests whose class becomes 0
    input_shift: float = 0.0  # in bins


@dataclass(frozen=True)
class Pools:
    canary: tuple[Telemetry, ...]
    control: tuple[Telemetry, ...]
    accuracy: tuple[tuple[float, float], ...]


def make_pools(
    rng: np.random.Generator, release: Traffic, *, accuracy_drop: float = 0.0, count: int = 1000
) -> Pools:
    """Pools of devices with different speed and load. The whole fleet slows down by 5 %."""

    def telemetry(after: Traffic, name: str) -> Telemetry:
        speed = rng.lognormal(math.log(4_000), 0.5)
        mix = rng.dirichlet([5.0] * 10)
        light = rng.normal(8, 2)
        before = window(rng, "1", Traffic(), speed, mix, light)
        now = window(rng, name, after, speed * 1.05, mix, light)
        return Telemetry(
            release=name, requests=now.requests, errors=now.errors, confidence_sum=0.0,
            confidence_count=0, latency_us_p50=0, latency_us_p95=int(speed * 2.5), memory_mib=100,
            scores=compare(before, now),
        )  # fmt: skip

    def golden() -> tuple[float, float]:
        before = rng.choice([0.94, 0.945, 0.95])  # by profile
        return float(before), float(np.clip(before - accuracy_drop + rng.normal(0, 0.005), 0, 1))

    return Pools(
        canary=tuple(telemetry(release, "2") for _ in range(count)),
        control=tuple(telemetry(Traffic(), "1") for _ in range(count)),
        accuracy=tuple(golden() for _ in range(count)),
    )


def window(
    rng: np.random.Generator, name: str, traffic: Traffic, speed: float, mix: Any, light: float
) -> QualityWindow:
    """A window of a hundred requests of one device, as the agent counts it."""
    count = 100
    latencies = rng.lognormal(math.log(speed * traffic.slower), 0.4, count)
    latency: dict[int, int] = {}
    for us in latencies:
        place = bucket(int(us))
        latency[place] = latency.get(place, 0) + 1
    classes = rng.choice(10, count, p=mix)
    classes[rng.random(count) < traffic.class_shift] = 0
    inputs = np.floor(rng.normal(light + traffic.input_shift, 1.5, count)).astype(int) % 16
    confidence = np.clip(rng.normal(traffic.confidence, 0.1, count), 0, 1).sum()
    return QualityWindow(
        release=name, since=0.0, requests=count, errors=int(rng.binomial(count, traffic.errors)),
        confidence_sum=float(confidence), confidence_count=count,
        sketches=Sketches(
            latency=latency,
            classes=tuple(np.bincount(classes, minlength=10).tolist()),
            inputs=tuple(np.bincount(inputs, minlength=16).tolist()),
        ),
    )  # fmt: skip
