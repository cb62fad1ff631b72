"""A start that is given up before the switch: found by a mixture of newcomers and late answers."""

import pytest

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.sim.store import Store
from edgefleet.sim.swarm import play

SEED, DEVICES = 15, 1000  # two newcomers are offered release 2 while they ask to start release 1


def test_a_newcomer_that_gives_a_start_up_is_not_left_without_a_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    withdrawn: list[int] = []
    save = Store.save_outcomes

    def listening(
        store: Store, row: int, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[Outcome, ...]:
        fresh = save(store, row, outcomes, now)
        withdrawn.extend(row for one in fresh if one.kind is OutcomeKind.WITHDRAWN)
        return fresh

    monkeypatch.setattr(Store, "save_outcomes", listening)
    result = play(SEED, DEVICES)
    assert withdrawn, "the mixture no longer meets it: look for another seed"
    assert (result.by_checker, result.finished) == ({}, True)
