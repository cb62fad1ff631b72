"""The index of rollouts answers as a search through all rollouts would."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import Status, Verb
from edgefleet.rollout import rollout_index
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger_page import encode_page
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.plans import MODEL, outcome, spec
from support.random_rollouts import DEVICES, SITES, live


def answers(hub: MemoryHub) -> list[object]:
    """The wanted release of every device, and the rollout that takes a release back from it."""
    desired = Desired(hub.engine.fleet)
    desired.arrange(hub.engine.rollout(state.id) for state in hub.engine.states())
    rows = np.arange(len(hub.engine.fleet))
    found: list[object] = [desired.numbers(rows, MODEL).tolist()]
    for row in rows.tolist():
        asked = desired.rollout(row, MODEL), desired.proven(row, MODEL)
        found += [
            active and active.state.id for active in (*asked, desired.withdrawn_by(row, MODEL))
        ]
    return found


def searched(hub: MemoryHub, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """``answers`` without an index."""
    with monkeypatch.context() as patch:
        patch.setattr(rollout_index, "_FEW", 1_000)
        return answers(hub)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_the_index_answers_as_a_search_does(seed: int):
    chance = random.Random(seed)
    hub = memory_hub(DEVICES, *"123")
    kept = Desired(hub.engine.fleet)  # its indexes live on, as those of the engine do
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_index, "_FEW", 0)
        for _ in range(6):
            for _ in range(15):
                live(hub, chance)
            wanted = searched(hub, patch)
            if chance.random() < 0.5:
                hub.engine.evaluated_rollouts()  # drops the devices that are no exceptions
            assert answers(hub) == wanted
            kept.arrange(hub.engine.rollout(state.id) for state in hub.engine.states())
            assert kept.numbers(np.arange(DEVICES), MODEL).tolist() == wanted[0]
            for row in range(DEVICES):
                mine = kept.rollout(row, MODEL)
                assert (mine and mine.state.id) == wanted[1 + 3 * row]


def test_a_device_is_asked_about_the_rollouts_of_its_own_site_alone():
    hub = memory_hub(DEVICES, *"12")
    for site in SITES:
        rollout = hub.start(spec("1", 100, selector=f"site={site}"))
        hub.command(rollout, Verb.ADVANCE)
        assert hub.engine.rollout(rollout).state.status is Status.COMPLETED
    index = rollout_index.RolloutIndex(
        hub.engine.fleet, [hub.engine.rollout(state.id) for state in hub.engine.states()]
    )
    for row in range(DEVICES):
        site = hub.engine.fleet.labels(row)["site"]
        assert [active.state.spec.selector for active in index.of(row)] == [f"site={site}"]


def test_a_device_keeps_the_release_of_the_site_that_it_left():
    hub = memory_hub(DEVICES, *"12")
    rollouts = {site: hub.start(spec("1", 100, selector=f"site={site}")) for site in SITES}
    row = 0
    site = hub.engine.fleet.labels(row)["site"]
    for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED):
        hub.engine.intake.record(row, outcome(rollouts[site], "1", kind), hub.now)
    hub.engine.fleet.set_labels(row, {"site": "nowhere"})
    assert hub.engine.rollout_of(row, MODEL) == rollouts[site]
    assert hub.engine.rollout_of(3, MODEL) is not None  # a neighbour, which has not begun
    hub.engine.fleet.set_labels(3, {"site": "nowhere"})
    assert hub.engine.rollout_of(3, MODEL) is None
    hub.engine.evaluated_rollouts()
    assert set(hub.engine.fleet.moves) == {row}  # the other one is no exception
    assert hub.engine.rollout_of(row, MODEL) == rollouts[site]
    assert hub.engine.rollout_of(3, MODEL) is None


def test_sealed_rollouts_give_the_same_answers():
    chance = random.Random(5)
    hub = memory_hub(DEVICES, *"123")
    for _ in range(120):
        live(hub, chance)
    before = answers(hub)
    for state in hub.engine.states():
        active = hub.engine.rollout(state.id)
        active.seal(encode_page(active.ledger.page()))
    assert answers(hub) == before
