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
from edgefleet.testing import MemoryHub
from support.fleets import CheckedFleet, memory_hub
from support.plans import MODEL, outcome, spec

DEVICES = 40
PLANS = {
    "plain": {},
    "waves": {"waves": (WaveSpec(percent=10), WaveSpec(percent=100))},
    "handfuls": {"exposure": ExposureSpec(first=2, growth=0.5, ceiling=1.0)},
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


def hub_in_rollout(**knobs: object) -> MemoryHub:
    """All devices run release 1, and a rollout of release 2 has started."""
    fleet = CheckedFleet(DEVICES)
    for release in ("1", "2", "3"):
        fleet.publish(release, artifact_bytes=1, golden_bytes=1)
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.start(replace(spec("2", 100), **knobs))
    return fleet


def shake(hub: MemoryHub, chance: Random) -> None:
    """Make one random change to the fleet, the rollout or the clock."""
    engine, row = hub.engine, chance.randrange(DEVICES)
    match chance.randrange(8):
        case 0 | 1:
            release = chance.choice(("1", "2", None))
            model = MODEL if release else None
            engine.fleet.observe(
                row, hub.now, model=model, release=release, phase=chance.choice(list(Phase))
            )
        case 2 | 3:
            start = outcome("ro-2", "2", OutcomeKind.TRIAL_STARTED, at=hub.now, reason="why")
            if engine.admission.admit(row, start, hub.now):
                engine.intake.record(row, start, hub.now)
        case 4:
            kinds = (OutcomeKind.CONFIRMED, OutcomeKind.REVERTED, OutcomeKind.REFUSED)
            sent = outcome("ro-2", "2", chance.choice(kinds), at=hub.now, reason="why")
            engine.intake.record(row, sent, hub.now)
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
                hub.command("ro-2", chance.choice(allowed))
        case _:
            hub.now += chance.choice((1.0, 30.0, 600.0))


def disagreement(hub: MemoryHub, row: int, decision: Offer | Blocked) -> str | None:
    """How ``why`` and ``decide`` differ about the device. None if they agree."""
    code = hub.engine.why_device(row, hub.now).waits[-1].code
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
    hub, chance = hub_in_rollout(**PLANS[plan]), Random(seed)
    for _ in range(150):
        shake(hub, chance)
        for row in range(0, DEVICES, 5):
            decision = hub.engine.admission.decide(row, MODEL, hub.now)
            assert disagreement(hub, row, decision) is None
            answer = hub.engine.admission.offers(row, hub.now)
            assert answer == (() if isinstance(decision, Blocked) else (decision,))


def test_a_why_that_differs_from_decide_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, row = hub_in_rollout(), 3
    hub.freeze(person="ann")
    decision = hub.engine.admission.decide(row, MODEL, hub.now)
    assert isinstance(decision, Blocked)
    assert disagreement(hub, row, decision) is None
    hub.freeze(frozen=False)
    given = hub.engine.rollout(hub.engine.rollout_of(row, MODEL))
    monkeypatch.setattr(Admission, "decide", lambda *_: given.offer)
    assert disagreement(hub, row, decision) is not None


WINDOW = WindowSpec(start="00:00", end="00:20")


def newcomer(**knobs: object) -> tuple[MemoryHub, int]:
    """A device that enrolled after the end of a rollout that follows newcomers."""
    hub = memory_hub(DEVICES, "1")
    rollout = hub.start(replace(spec("1", 100), **knobs))
    hub.command(rollout, Verb.ADVANCE)
    fleet = hub.engine.fleet
    row = hub.add_device("late", fleet.profile(0), fleet.labels(0))
    fleet.set_protocol(row, PROTOCOL)
    fleet.observe(row, hub.now, model=None, release=None, phase=Phase.IDLE)
    return hub, row


def last_code(hub: MemoryHub, row: int) -> WaitCode:
    return hub.engine.why_device(row, hub.now).waits[-1].code


def test_a_frozen_fleet_is_named_after_the_rollout_has_completed() -> None:
    hub, row = newcomer(follow=True)
    assert isinstance(hub.engine.admission.decide(row, MODEL, hub.now), Offer)
    assert last_code(hub, row) is WaitCode.CHECK_IN
    hub.freeze(person="ann")
    decision = hub.engine.admission.decide(row, MODEL, hub.now)
    assert isinstance(decision, Blocked)
    assert last_code(hub, row) is decision.code is WaitCode.FREEZE


def test_a_closed_window_is_named_after_the_rollout_has_completed() -> None:
    hub, row = newcomer(follow=True, windows=(WINDOW,))
    while (hub.now % 86_400) < 1_200:
        hub.now += 600.0
    hub.engine.fleet.observe(row, hub.now, model=None, release=None, phase=Phase.STAGED)
    assert last_code(hub, row) is WaitCode.WINDOW
