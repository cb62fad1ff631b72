"""A start withdrawn before the switch, in a scenario with newcomers and late answers."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.store import Store
from edgefleet.sim.virtual.swarm import mixture

SEED, DEVICES = 62, 600  # a newcomer is offered release 2 while it starts release 1


def test_a_newcomer_that_gives_a_start_up_is_not_left_without_a_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    withdrawn: list[int] = []
    save = Store.save_outcomes

    def listening(
        store: Store, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[tuple[Rows, Outcome], ...]:
        fresh = save(store, rows, outcomes, now)
        for told, one in fresh:
            if one.kind is OutcomeKind.WITHDRAWN:
                withdrawn.extend(told.tolist())
        return fresh

    monkeypatch.setattr(Store, "save_outcomes", listening)
    drawn = mixture(SEED)
    one_model = replace(
        drawn,
        fleet=replace(drawn.fleet, models=1, one_model_agents=0.0),
        faults=replace(drawn.faults, hub_restores=0),
        rollout=replace(drawn.rollout, selector=""),
        beside=(),
    )
    result = Run(one_model, name="withdrawn", devices=DEVICES, seed=SEED).play()
    assert withdrawn, "the seed no longer has a withdrawn start: find another seed"
    assert (result.by_checker, result.finished) == ({}, True)
