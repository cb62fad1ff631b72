"""Offer and ``why`` of a device come from the same decision at every time."""

from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Offer, OutcomeKind, Phase
from edgefleet.protocol.rollout import (
    BudgetSpec,
    ExposureSpec,
    Freeze,
    PaceSpec,
    Status,
    Verb,
    WaveSpec,
    WindowSpec,
)
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.admission.control import Admission
from edgefleet.rollout.constraints.blocked import Blocked
from support.toy_rollout import MODEL, ToyShell, outcome, spec

DEVICES = 40
PLANS = {
    "plain": {},
    "waves": {"waves": (WaveSpec(percent=10), WaveSpec(percent=100))},
    "handfuls": {"exposure": ExposureSpec(first=2, growth=0.5)},
    "bytes": {"pace": PaceSpec(bytes_per_s=1)},
    "budgets": {"budgets": (BudgetSpec(label="site", max_in_trial=1),)},
    "windows": {"windows": (WindowSpec(start="00:00", end="00:20"),)},
    "followed": {"follow": True},
}
ON_ITS_WAY = {WaitCode.CHECK_IN, WaitCode.FETCHING, WaitCode.TRIAL, WaitCode.REVERTING}
STARTS = {
    WaitCode.WINDOW, WaitCode.EXPOSURE, WaitCode.PACE, WaitCode.BUDGET, WaitCode.APPROVAL,
    WaitCode.FREEZE,
}  # fmt: skip
"""Codes that block the start of a release that the device is offered and may download."""


def shell_in_rollout(**knobs: object) -> ToyShell:
    shell = ToyShell(DEVICES)
    for release in ("1", "2", "3"):
        shell.publish(release)
    shell.run(shell.start(spec("1", 100)))
    shell.command(shell.plan(replace(spec("2", 100), **knobs)), Verb.START)
    return shell


def shake(shell: ToyShell, chance: Random) -> None:
    """Make one random change to the fleet, the rollout or the clock."""
    engine, row = shell.engine, chance.randrange(DEVICES)
    match chance.randrange(8):
        case 0 | 1:
            release = chance.choice(("1", "2", None))
            model = MODEL if release else None
            engine.fleet.observe(
                row, shell.now, model=model, release=release, phase=chance.choice(list(Phase))
            )
        case 2 | 3:
            start = outcome("ro-2", "2", OutcomeKind.TRIAL_STARTED, at=shell.now, reason="why")
            if engine.admission.admit(row, start, shell.now):
                engine.intake.record(row, start, shell.now)
        case 4:
            kinds = (OutcomeKind.CONFIRMED, OutcomeKind.REVERTED, OutcomeKind.REFUSED)
            sent = outcome("ro-2", "2", chance.choice(kinds), at=shell.now, reason="why")
            engine.intake.record(row, sent, shell.now)
        case 5:
            engine.set_freeze(Freeze(frozen=chance.random() < 0.3, person="ann"))
        case 6:
            status = next(state.status for state in engine.states() if state.id == "ro-2")
            verbs = {
                Status.RUNNING: (Verb.PAUSE, Verb.ADVANCE, Verb.HALT),
                Status.PAUSED: (Verb.RESUME,),
                Status.HALTED: (Verb.RESUME, Verb.REVERT),
                Status.COMPLETED: (),
            }
            if (allowed := verbs.get(status, ())) and chance.random() < 0.4:
                shell.command("ro-2", chance.choice(allowed))
        case _:
            shell.now += chance.choice((1.0, 30.0, 600.0))


def disagreement(shell: ToyShell, row: int, decision: Offer | Blocked) -> str | None:
    """How ``why`` and ``decide`` differ about the device. None if they agree."""
    code = shell.engine.why_device(row, shell.now).waits[-1].code
    if isinstance(decision, Offer):
        fine = code in ON_ITS_WAY or code in STARTS
    elif decision.code in (WaitCode.DONE, WaitCode.NO_ROLLOUT):
        fine = code not in (WaitCode.CHECK_IN, WaitCode.FETCHING) and code not in STARTS
    else:
        fine = code is not WaitCode.CHECK_IN
    return None if fine else f"{row}: {decision} but {code}"


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(4))
def test_why_names_what_decide_returned(plan: str, seed: int) -> None:
    shell, chance = shell_in_rollout(**PLANS[plan]), Random(seed)
    for _ in range(150):
        shake(shell, chance)
        for row in range(0, DEVICES, 5):
            decision = shell.engine.admission.decide(row, MODEL, shell.now)
            assert disagreement(shell, row, decision) is None
            answer = shell.engine.admission.offers(row, shell.now)
            assert answer == (() if isinstance(decision, Blocked) else (decision,))


def test_a_why_that_differs_from_decide_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shell, row = shell_in_rollout(), 3
    shell.engine.set_freeze(Freeze(frozen=True, person="ann"))
    decision = shell.engine.admission.decide(row, MODEL, shell.now)
    assert isinstance(decision, Blocked)
    assert disagreement(shell, row, decision) is None
    shell.engine.set_freeze(Freeze(frozen=False))
    given = shell.engine.rollout(shell.engine.rollout_of(row, MODEL))
    monkeypatch.setattr(Admission, "decide", lambda *_: given.offer)
    assert disagreement(shell, row, decision) is not None


WINDOW = WindowSpec(start="00:00", end="00:20")


def newcomer(**knobs: object) -> tuple[ToyShell, int]:
    """A device that enrolled after the end of a rollout that follows newcomers."""
    shell = ToyShell(DEVICES)
    shell.publish("1")
    rollout = shell.start(replace(spec("1", 100), **knobs))
    shell.command(rollout, Verb.ADVANCE)
    fleet = shell.engine.fleet
    row = fleet.add("late", fleet.profile(0), fleet.labels(0))
    fleet.set_protocol(row, PROTOCOL)
    fleet.observe(row, shell.now, model=None, release=None, phase=Phase.IDLE)
    return shell, row


def last_code(shell: ToyShell, row: int) -> WaitCode:
    return shell.engine.why_device(row, shell.now).waits[-1].code


def test_a_frozen_fleet_is_named_after_the_rollout_has_completed() -> None:
    shell, row = newcomer(follow=True)
    assert isinstance(shell.engine.admission.decide(row, MODEL, shell.now), Offer)
    assert last_code(shell, row) is WaitCode.CHECK_IN
    shell.engine.set_freeze(Freeze(frozen=True, person="ann"))
    decision = shell.engine.admission.decide(row, MODEL, shell.now)
    assert isinstance(decision, Blocked)
    assert last_code(shell, row) is decision.code is WaitCode.FREEZE


def test_a_closed_window_is_named_after_the_rollout_has_completed() -> None:
    shell, row = newcomer(follow=True, windows=(WINDOW,))
    while (shell.now % 86_400) < 1_200:
        shell.now += 600.0
    shell.engine.fleet.observe(row, shell.now, model=None, release=None, phase=Phase.STAGED)
    assert last_code(shell, row) is WaitCode.WINDOW
