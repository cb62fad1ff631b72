"""Batch reports have the same result as the same reports one after the other."""

from random import Random

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import (
    CheckIn,
    Outcome,
    OutcomeKind,
    Phase,
    Scores,
    Sketches,
    Switch,
    Telemetry,
)
from edgefleet.protocol.rollout import (
    BudgetSpec,
    ExposureSpec,
    PaceSpec,
    Verb,
    WaveSpec,
    WindowSpec,
)
from edgefleet.protocol.version import PROTOCOL
from support.fleets import memory_hub
from support.plans import MODEL, outcome, spec

DEVICES = 120
PLANS = {
    "plain": {},
    "waves": {"waves": (WaveSpec(percent=10), WaveSpec(percent=50), WaveSpec(percent=100))},
    "selections": {"waves": (WaveSpec(count=9, selector="site=s1"), WaveSpec(percent=40))},
    "handfuls": {"exposure": ExposureSpec(first=3, growth=0.5, ceiling=1.0)},
    "pace": {"pace": PaceSpec(starts_per_minute=7)},
    "bytes": {"pace": PaceSpec(bytes_per_s=1)},
    "budgets": {"budgets": (BudgetSpec(label="site", max_in_trial=2),)},
    "windows": {"windows": (WindowSpec(start="00:00", end="23:00"),)},
}
KINDS = [
    (OutcomeKind.CONFIRMED, 6), (OutcomeKind.TRIAL_FAILED, 2), (OutcomeKind.REFUSED, 1),
    (OutcomeKind.REVERTED, 1), (OutcomeKind.WITHDRAWN, 2), (OutcomeKind.DEFERRED, 1),
]  # fmt: skip


class Twins:
    """Two engines with the same reports: one gets them one by one, the other in batches."""

    def __init__(self, seed: int, **knobs: object) -> None:
        self.chance = Random(seed)
        self.singly, self.together = memory_hub(DEVICES, "1", "2"), memory_hub(DEVICES, "1", "2")
        wanted = replace(spec("2", 100), **knobs)
        for hub in (self.singly, self.together):
            hub.command(hub.plan(spec("1", 100)), Verb.START)
            self.rollout = "ro-1"
        for verb in (Verb.ADVANCE,):
            self.command("ro-1", verb)
        rows = np.arange(DEVICES)
        self.observe(rows, "1", Phase.IDLE)
        for hub in (self.singly, self.together):
            hub.command(hub.plan(wanted), Verb.START)
        self.rollout = "ro-2"
        self.attempt = 1

    def some(self) -> np.ndarray:
        count = self.chance.randrange(1, DEVICES // 2)
        return np.array(sorted(self.chance.sample(range(DEVICES), count)))

    def command(self, rollout: str, verb: Verb) -> None:
        for hub in (self.singly, self.together):
            hub.command(rollout, verb)

    def observe(self, rows: np.ndarray, release: str | None, phase: Phase) -> None:
        now, model = self.singly.now, MODEL if release else None
        for row in rows.tolist():
            self.singly.engine.fleet.observe(row, now, model=model, release=release, phase=phase)
        self.together.engine.fleet.observe_all(rows, now, model=model, release=release, phase=phase)

    def send(self, rows: np.ndarray, kind: OutcomeKind) -> None:
        sent = replace(
            outcome(self.rollout, "2", kind, at=self.singly.now, reason="why"),
            attempt=self.attempt, accuracy=0.9, accuracy_before=0.93,
        )  # fmt: skip
        now = self.singly.now
        one, many = self.singly.engine, self.together.engine
        if kind is OutcomeKind.TRIAL_STARTED:
            admitted = [one.admission.admit(row, sent, now) for row in rows.tolist()]
            mask = many.batch.admit(rows, sent, now)
            assert mask.tolist() == admitted
            rows = rows[mask]
            if not len(rows):
                return
        new = [one.intake.record(row, sent, now) for row in rows.tolist()]
        assert many.batch.record(rows, sent, now) == sum(new)

    def send_telemetry(self, rows: np.ndarray, sent: Telemetry) -> None:
        for row in rows.tolist():
            self.singly.engine.intake.add_telemetry(row, sent, self.singly.now)
        check_in = CheckIn(protocol=PROTOCOL, seq=1, telemetry=sent)
        self.together.engine.batch.figures(rows, check_in, self.singly.now)

    def answers(self, rows: np.ndarray) -> None:
        now = self.singly.now
        one = {row: self.singly.engine.admission.offers(row, now) for row in rows.tolist()}
        many = {
            row: offer
            for offer, offered in self.together.engine.batch.answers(rows, now)
            for row in offered.tolist()
        }
        assert many == one

    def freeze(self, *, frozen: bool) -> None:
        for hub in (self.singly, self.together):
            hub.freeze(frozen=frozen, person="ann")

    def evaluate(self, seconds: float) -> None:
        for hub in (self.singly, self.together):
            hub.now += seconds
            hub.evaluate()

    def compare(self) -> None:
        mine, theirs = (
            msgspec.to_builtins(hub.engine.view("ro-2", hub.now))
            for hub in (self.singly, self.together)
        )
        assert_alike(mine, theirs)
        one, many = self.singly.engine, self.together.engine
        for row in range(DEVICES):
            assert one.quarantined_models(row) == many.quarantined_models(row)
        assert one.why_device(5, self.singly.now) == many.why_device(5, self.singly.now)


def assert_alike(mine: object, theirs: object) -> None:
    """Equal up to the rounding of floating-point sums in another order."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert_alike(value, theirs[key])
    elif isinstance(mine, list | tuple) and isinstance(theirs, list | tuple):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_alike(one, other)
    elif isinstance(mine, float):
        assert theirs == pytest.approx(mine, rel=1e-9)
    else:
        assert mine == theirs


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(4))
def test_many_at_once_are_what_they_are_one_by_one(plan: str, seed: int) -> None:
    twins = Twins(seed, **PLANS[plan])
    chance = twins.chance
    for _ in range(60):
        rows = twins.some()
        match chance.randrange(10):
            case 0 | 1 | 2:
                twins.observe(rows, "1", chance.choice((Phase.IDLE, Phase.STAGED)))
                twins.send(rows, OutcomeKind.TRIAL_STARTED)
            case 3 | 4:
                kinds, weights = zip(*KINDS, strict=True)
                twins.send(rows, chance.choices(kinds, weights)[0])
            case 5:
                twins.observe(rows, chance.choice(("1", "2", None)), chance.choice(list(Phase)))
                twins.answers(rows)
            case 6:
                twins.send_telemetry(rows, figures(chance))
            case 7:
                twins.evaluate(chance.choice((1.0, 5.0, 30.0)))
            case 8:
                twins.freeze(frozen=chance.random() < 0.3)
            case _:
                twins.attempt += 1
        twins.compare()


def figures(chance: Random) -> Telemetry:
    sketches = Sketches(latency={20: 9}, confidence=(0, 5), classes=(1, 2), inputs=(3,))
    requests = chance.choice((0, 10, 50))
    return Telemetry(
        release=chance.choice(("1", "2")), requests=requests, errors=requests // 5,
        confidence_sum=0.8 * requests, confidence_count=requests, latency_us_p50=1,
        latency_us_p95=chance.choice((900, 900_000)), memory_mib=chance.choice((1, 60)),
        sketches=chance.choice((None, sketches)),
        model=chance.choice((None, MODEL, "other")), scores=chance.choice((None, scores(chance))),
    )  # fmt: skip


def scores(chance: Random) -> Scores:
    """Scores of a model that stayed or was switched, perhaps beside the switch of another one."""
    return Scores(
        from_release=chance.choice(("1", "2")), to_release=chance.choice(("1", "2")), requests=100,
        latency_log_ratio=chance.choice((0.0, 0.3)), error_rate_delta=chance.choice((0.0, 0.1)),
        switched=chance.choice((None, Switch(model=MODEL, release="2"))),
    )  # fmt: skip


def test_a_start_that_was_withdrawn_may_be_asked_for_again_by_many() -> None:
    twins = Twins(1)
    rows = np.arange(40)
    twins.observe(rows, "1", Phase.STAGED)
    twins.send(rows, OutcomeKind.TRIAL_STARTED)
    twins.send(rows[:20], OutcomeKind.WITHDRAWN)
    assert twins.together.view("ro-2").exposed == 20
    twins.attempt = 2
    twins.send(rows, OutcomeKind.TRIAL_STARTED)
    assert twins.together.view("ro-2").exposed == 40
    twins.compare()


def test_a_check_in_that_was_answered_before_is_known_among_many() -> None:
    fleet = memory_hub(4).engine.fleet
    fleet.accept_seq(2, 9)
    assert fleet.accept_seqs(np.arange(4), 9).tolist() == [True, True, False, True]
    assert [fleet.last_seq(row) for row in range(4)] == [9, 9, 9, 9]
    assert not fleet.accept_seqs(np.arange(4), 1 << 63).any()


def test_a_report_about_an_unknown_rollout_is_not_counted() -> None:
    alike = memory_hub(4).engine.batch
    sent = Outcome(id="x", rollout="ro-9", release="1", kind=OutcomeKind.TRIAL_STARTED, at=0.0)
    assert not alike.admit(np.arange(4), sent, 0.0).any()
    assert alike.record(np.arange(4), sent, 0.0) == 0
