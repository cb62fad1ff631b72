"""The order of a check-in: stored before acknowledged, recorded before answered."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import edgefleet
from edgefleet.protocol.device import (
    CheckIn,
    Facts,
    ModelReport,
    Outcome,
    OutcomeKind,
    Phase,
    Telemetry,
    digest,
)
from edgefleet.protocol.rollout import (
    BudgetSpec,
    ExposureSpec,
    GateSpec,
    PaceSpec,
    RolloutSpec,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.version import OLDEST, ONE_MODEL, PROTOCOL, is_served
from edgefleet.rollout import checkin
from edgefleet.rollout.checkin import (
    Answered,
    AnsweredBatch,
    OutOfSequence,
    Pending,
    PendingBatch,
    Step,
)
from edgefleet.rollout.engine import Engine
from edgefleet.testing.release import fake_manifest

NOW = 1_700_000_000.0
MODEL, OLD, NEW = "digits", "1", "2"
STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
ONE_AT_ONCE = ExposureSpec(first=1, growth=0.0)
EVERYBODY = ExposureSpec(first=1_000_000)


def engine_with(devices: int, **knobs: object) -> Engine:
    """A fleet on release 1, and a rollout ``ro-1`` of release 2 to all of it, just started."""
    engine = Engine(now=NOW, offline_after_s=1e9)
    for release in (OLD, NEW):
        engine.add_release(fake_manifest(MODEL, release, ("generic_x86",), now=NOW), release * 64)
    for row in range(devices):
        engine.fleet.add(f"d{row:03}", "generic_x86", {"site": f"s{row % 3}"})
        engine.fleet.observe(row, NOW, model=MODEL, release=OLD, phase=Phase.IDLE)
    spec = RolloutSpec(
        model=MODEL,
        release=NEW,
        waves=(WaveSpec(percent=100),),
        gate=GateSpec(soak_s=0, confirm_after_s=1),
        exposure=EVERYBODY,
    )
    spec = replace(spec, **knobs)
    engine.load(engine.plan(spec, rollout_id="ro-1", salt=7, now=NOW))
    engine.commit(engine.command("ro-1", Verb.START, now=NOW))
    return engine


def report(kind: OutcomeKind, *, id_: str = "", rollout: str = "ro-1", attempt: int = 1) -> Outcome:
    return Outcome(
        id=id_ or f"{kind}-{attempt}",
        rollout=rollout,
        release=NEW,
        kind=kind,
        at=NOW,
        attempt=attempt,
    )


def check_in(
    *outcomes: Outcome, seq: int = 1, release: str = OLD, phase: Phase = Phase.IDLE, **more: object
) -> CheckIn:
    said = CheckIn(
        protocol=ONE_MODEL, seq=seq, phase=phase, model=MODEL, release=release, outcomes=outcomes
    )
    return replace(said, **more)


def pending(step: Step | OutOfSequence) -> Pending:
    assert isinstance(step, Pending)
    return step


def answered(step: Step | OutOfSequence) -> Answered:
    assert isinstance(step, Answered)
    return step


@dataclass
class Shell:
    """The thinnest shell. It checks at each of its effects what must be true by then."""

    engine: Engine
    store: dict[tuple[int, str], Outcome] = field(default_factory=dict)
    fails: bool = False
    wrong: list[str] = field(default_factory=list)

    def exchange(self, row: int, said: CheckIn, now: float = NOW) -> Answered | None:
        """One check-in; None where the store failed."""
        step = checkin.begin(self.engine, row, said, now)
        while isinstance(step, Pending):
            if self.fails:
                checkin.abandon(self.engine, step)
                return None
            fresh = [one for one in step.to_store if (row, one.id) not in self.store]
            self.store.update({(row, one.id): one for one in fresh})
            step = checkin.finish(self.engine, step, fresh, now)
        last = answered(step)
        self.check(row, said, last, now)
        return last

    def check(self, row: int, said: CheckIn, last: Answered, now: float) -> None:
        """Acknowledged means stored, and stored means counted. An agent too old gets no offer."""
        for name in last.receipt.stored:
            if (row, name) not in self.store:
                self.wrong.append(f"{name} was acknowledged, not stored")
        view = self.engine.view("ro-1", now)
        exposed = {at for (at, _), one in self.store.items() if one.kind in (STARTED, CONFIRMED)}
        if view.exposed != len(exposed):
            self.wrong.append(f"{view.exposed} counted, {len(exposed)} stored")
        if last.offer is not None and not is_served(said.protocol) and row not in exposed:
            self.wrong.append("an agent too old was offered a release")


def shell_of(devices: int, **knobs: object) -> Shell:
    return Shell(engine_with(devices, **knobs))


# The result of each step.


def test_a_heartbeat_is_answered_at_once() -> None:
    engine = engine_with(1)
    engine.commit(engine.command("ro-1", Verb.PAUSE, now=NOW))
    first = checkin.begin(engine, 0, check_in(), NOW)
    assert answered(first) == Answered()
    assert checkin.begin(engine, 0, check_in(seq=2), NOW) is first, "nothing is made for it"


def test_a_check_in_out_of_sequence_is_refused_and_changes_nothing() -> None:
    engine = engine_with(1)
    checkin.begin(engine, 0, check_in(seq=5), NOW)
    late = check_in(report(STARTED), seq=5, release=NEW, phase=Phase.TRIAL)
    assert checkin.begin(engine, 0, late, NOW + 9) == OutOfSequence(next_seq=6)
    (model,) = engine.fleet.models.reports(0)
    assert (model.model, model.release) == (MODEL, OLD)
    assert engine.fleet.last_seen(0) == NOW
    assert engine.admission.admit(0, report(STARTED), NOW)


def test_a_start_is_acknowledged_only_by_the_step_after_its_store() -> None:
    engine = engine_with(1)
    start = report(STARTED)
    step = pending(checkin.begin(engine, 0, check_in(start, phase=Phase.STAGED), NOW))
    assert step.to_store == step.reserved == (start,)
    assert engine.view("ro-1", NOW).exposed == 0, "nothing is counted before it is durable"
    last = answered(checkin.finish(engine, step, (start,), NOW))
    assert last.acked == (start.id,)
    assert engine.view("ro-1", NOW).exposed == 1


def test_a_start_that_is_not_admitted_is_neither_stored_nor_acknowledged() -> None:
    shell = shell_of(2, exposure=ONE_AT_ONCE)
    staged = check_in(report(STARTED), phase=Phase.STAGED)
    first, second = (shell.exchange(row, staged) for row in (0, 1))
    assert first is not None
    assert first.acked
    assert second is not None
    assert not second.acked
    assert {row for row, _ in shell.store} == {0}


def test_a_store_that_fails_gives_the_places_back() -> None:
    shell = shell_of(2, exposure=ONE_AT_ONCE)
    staged = check_in(report(STARTED), phase=Phase.STAGED)
    shell.fails = True
    assert shell.exchange(0, staged) is None
    assert shell.engine.view("ro-1", NOW).exposed == 0
    shell.fails = False
    other = shell.exchange(1, staged)
    assert other is not None
    assert other.acked, "the place is free again"


def test_a_place_is_reserved_until_the_store_has_answered() -> None:
    engine = engine_with(2, exposure=ONE_AT_ONCE)
    staged = check_in(report(STARTED), phase=Phase.STAGED)
    first = pending(checkin.begin(engine, 0, staged, NOW))
    assert answered(checkin.begin(engine, 1, staged, NOW)).acked == ()
    checkin.abandon(engine, first)
    again = replace(staged, seq=2)
    assert pending(checkin.begin(engine, 1, again, NOW)).reserved == staged.outcomes


def test_a_place_that_was_recorded_stays_taken() -> None:
    shell = shell_of(2, exposure=ONE_AT_ONCE)
    staged = check_in(report(STARTED), phase=Phase.STAGED)
    shell.exchange(0, staged)
    shell.exchange(0, replace(staged, seq=2))
    second = shell.exchange(1, staged)
    assert second is not None
    assert second.acked == ()


def test_a_repeated_report_is_acknowledged_again_and_counts_once() -> None:
    shell = shell_of(1)
    for seq in (1, 2, 3):
        said = check_in(report(STARTED), seq=seq, phase=Phase.TRIAL, release=NEW)
        again = shell.exchange(0, said)
        assert again is not None
        assert again.acked == (said.outcomes[0].id,)
    assert shell.engine.view("ro-1", NOW).exposed == 1
    assert not shell.wrong


def test_a_report_that_concerns_no_rollout_of_the_device_is_dropped_and_acknowledged() -> None:
    # Nothing is in a wave of none of the devices, so no report but a start may be forgotten.
    engine = engine_with(2, waves=(WaveSpec(count=1), WaveSpec(percent=100)))
    outside = next(row for row in (0, 1) if engine.intake.position(row, report(CONFIRMED)) is None)
    lie, start = report(CONFIRMED), report(STARTED)
    last = answered(checkin.begin(engine, outside, check_in(lie, start), NOW))
    assert last.acked == last.receipt.dropped == (lie.id,)
    assert engine.view("ro-1", NOW).evidence.healthy == 0


def test_facts_are_durable_before_a_start_is_admitted() -> None:
    engine = engine_with(1)
    start = report(STARTED)
    facts = Facts(profile="jetson_nano", agent_version="1")
    said = check_in(start, phase=Phase.STAGED, facts=facts)
    step = pending(checkin.begin(engine, 0, said, NOW))
    assert (step.facts, step.to_store) == (facts, ())
    engine.fleet.set_facts(0, facts.profile, {}, runtimes=(), memory_mib=0)
    last = answered(checkin.finish(engine, step, (), NOW))
    assert last.acked == (), "the release has no variant for what the device is now"


def test_figures_count_for_the_release_that_the_report_of_the_same_check_in_began() -> None:
    engine = engine_with(1)
    start = report(STARTED)
    figures = telemetry(NEW)
    said = check_in(start, release=NEW, phase=Phase.TRIAL, telemetry=figures)
    step = pending(checkin.begin(engine, 0, said, NOW))
    answered(checkin.finish(engine, step, (start,), NOW))
    assert engine.view("ro-1", NOW).evidence.canary.requests == figures.requests


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_figures_of_a_copied_device_count_in_no_cohort(*, copied: bool, batch: bool) -> None:
    engine = engine_with(1)
    start, figures = report(STARTED), telemetry(NEW)
    step = pending(checkin.begin(engine, 0, check_in(start, release=NEW, phase=Phase.TRIAL), NOW))
    answered(checkin.finish(engine, step, (start,), NOW))
    if copied:
        engine.fleet.copies.load({0: {1: NOW, 2: NOW}})
    said = check_in(release=NEW, phase=Phase.TRIAL, telemetry=figures, seq=2)
    if batch:
        checkin.begin_batch(engine, np.array([0]), said, NOW)
    else:
        answered(checkin.begin(engine, 0, said, NOW))
    counted = engine.view("ro-1", NOW).evidence.canary.requests
    assert counted == (0 if copied else figures.requests)


# Planted: shells and cores that have another order.


def random_check_ins(shell: Shell, seed: int) -> None:
    """Check-ins of agents of both versions, with starts, ends and repetitions."""
    chance = Random(seed)
    kinds = [STARTED, CONFIRMED, OutcomeKind.REFUSED, OutcomeKind.DEFERRED]
    for number in range(1, 60):
        row = chance.randrange(6)
        outcomes = tuple(
            report(kind, id_=f"{row}-{kind}") for kind in chance.sample(kinds, chance.randrange(3))
        )
        protocol = OLDEST if row == 0 else ONE_MODEL
        shell.fails = chance.random() < 0.1
        shell.exchange(row, check_in(*outcomes, seq=number, protocol=protocol))


def answers_before_recording(patch: pytest.MonkeyPatch) -> None:
    def finish(engine: Engine, step: Pending, fresh: Iterable[Outcome], now: float) -> Step:
        return right(engine, step, (), now)

    right = checkin.finish
    patch.setattr(checkin, "finish", finish)


def acknowledges_before_storing(patch: pytest.MonkeyPatch) -> None:
    def begin(engine: Engine, row: int, said: CheckIn, now: float) -> Step | OutOfSequence:
        step = right(engine, row, said, now)
        if isinstance(step, Pending) and step.to_store:
            return checkin.finish(engine, step, (), now)
        return step

    right = checkin.begin
    patch.setattr(checkin, "begin", begin)


PLANTED = [answers_before_recording, acknowledges_before_storing]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_holds_over_many_check_ins(seed: int) -> None:
    shell = shell_of(6, exposure=ExposureSpec(first=3))
    random_check_ins(shell, seed)
    assert shell.wrong == []


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_another_order_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = shell_of(6, exposure=ExposureSpec(first=3))
    plant(monkeypatch)
    random_check_ins(shell, 1)
    assert shell.wrong


_STEP = re.compile(
    r"\b_?engine\.(admission|intake|batch)"
    r"\.(admit|add_telemetry|telemetry|offer|answers|concern|position|free|release)\("
)


def test_no_shell_has_an_order_of_its_own() -> None:
    """Outside of rollout/ nothing takes a step of a check-in by itself."""
    sources = Path(edgefleet.__file__).parent
    found = [
        f"{path.relative_to(sources)}: {line.strip()}"
        for path in sources.rglob("*.py")
        if path.parent != sources / "rollout"
        for line in path.read_text().splitlines()
        if _STEP.search(line)
    ]
    assert found == []
    assert _STEP.search("admitted = self._engine.admission.admit(row, start, now)")


# Many devices.


def telemetry(release: str) -> Telemetry:
    return Telemetry(
        release=release,
        requests=40,
        errors=1,
        confidence_sum=36.0,
        confidence_count=40,
        latency_us_p50=100,
        latency_us_p95=200,
        memory_mib=10,
    )


@dataclass
class Twin:
    """One engine and its store, to be asked device by device or by batches."""

    engine: Engine
    store: set[tuple[int, str]] = field(default_factory=set)

    def singly(
        self, rows: list[int], said: CheckIn, now: float, *, fails: bool
    ) -> dict[int, Answered | OutOfSequence | None]:
        """The store commits all of their reports together, as it does under load."""
        steps = {row: checkin.begin(self.engine, row, said, now) for row in rows}
        while any(isinstance(step, Pending) for step in steps.values()):
            for row, step in steps.items():
                if not isinstance(step, Pending):
                    continue
                if fails:
                    checkin.abandon(self.engine, step)
                    steps[row] = Answered()
                    continue
                fresh = [one for one in step.to_store if (row, one.id) not in self.store]
                self.store |= {(row, one.id) for one in fresh}
                steps[row] = checkin.finish(self.engine, step, fresh, now)
        return steps  # type: ignore[return-value] # none is pending

    def together(
        self, rows: list[int], said: CheckIn, now: float, *, fails: bool
    ) -> dict[int, Answered | OutOfSequence | None]:
        begun = checkin.begin_batch(self.engine, np.array(rows), said, now)
        step = begun.step
        found: dict[int, Answered | OutOfSequence | None] = {
            row: refusal for refusal, told in begun.refused for row in told.tolist()
        }
        while isinstance(step, PendingBatch):
            if fails:
                checkin.abandon_batch(self.engine, step)
                return found | dict.fromkeys(step.rows.tolist(), Answered())
            fresh = []
            for group in step.to_store:
                for one in group.to_store:
                    new = [row for row in group.rows.tolist() if (row, one.id) not in self.store]
                    self.store |= {(row, one.id) for row in new}
                    if new:
                        fresh.append((np.array(new), one))
            step = checkin.finish_batch(self.engine, step, fresh, now)
        assert isinstance(step, AnsweredBatch)
        for answer, told in step.parts:
            for row in told.tolist():
                assert row not in found, "no row is answered twice"
                found[row] = answer
        return found


def naming_the_giver(said: CheckIn, chance: Random) -> CheckIn:
    """The same check-in by an agent of protocol 3, of a rollout that the hub has or has not."""
    models = (ModelReport(model=MODEL, release=said.release, phase=said.phase),)
    return replace(
        said,
        protocol=PROTOCOL,
        model=None,
        release=None,
        models=models,
        digest=digest(models),
        full=chance.random() < 0.5,
        given=chance.choice(((), ((MODEL, "ro-1"),), ((MODEL, "ro-9"),))),
    )


KNOBS: dict[str, dict[str, object]] = {
    "plain": {},
    "few": {"exposure": ExposureSpec(first=4)},
    "waves": {"waves": (WaveSpec(percent=30), WaveSpec(percent=100))},
    "budgets": {"budgets": (BudgetSpec(label="site", max_in_trial=3),)},
    "pace": {"pace": PaceSpec(starts_per_minute=5)},
}


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("seed", range(4))
def test_a_batch_is_what_its_devices_are_one_by_one(knobs: str, seed: int) -> None:
    devices, chance = 40, Random(seed)
    one, many = (Twin(engine_with(devices, **KNOBS[knobs])) for _ in range(2))
    now, ahead = NOW, 0
    kinds = [STARTED, CONFIRMED, OutcomeKind.REFUSED, OutcomeKind.DEFERRED, OutcomeKind.REVERTED]
    for number in range(1, 40):
        now += chance.choice((0.5, 20.0))
        rows = sorted(chance.sample(range(devices), chance.randrange(1, devices)))
        outcomes = tuple(
            report(kind, attempt=number // 8) for kind in chance.sample(kinds, chance.randrange(3))
        )
        said = check_in(
            *outcomes,
            seq=number // 2 + 1,
            release=chance.choice((OLD, NEW)),
            phase=chance.choice((Phase.IDLE, Phase.STAGED)),
            protocol=chance.choice((ONE_MODEL, ONE_MODEL, OLDEST)),
            telemetry=chance.choice((None, telemetry(NEW))),
            facts=chance.choice((None, Facts(profile="generic_x86", agent_version="1"))),
        )
        if number % 3 == 0:
            said = naming_the_giver(said, chance)
        fails = chance.random() < 0.1
        mine = one.singly(rows, said, now, fails=fails)
        theirs = many.together(rows, said, now, fails=fails)
        assert fails or theirs == mine  # a commit that fails leaves a whole batch unanswered
        assert one.store == many.store
        views = [msgspec.to_builtins(twin.engine.view("ro-1", now)) for twin in (one, many)]
        assert views[0]["evidence"] == views[1]["evidence"]
        assert views[0]["exposed"] == views[1]["exposed"]
        found = [dict(twin.engine.ahead.devices()) for twin in (one, many)]
        assert found[0] == found[1]
        ahead += len(found[0])
    assert ahead
