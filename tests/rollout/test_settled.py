"""A device that is known to need nothing is offered nothing, and a heartbeat is a short check-in."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.protocol.device import CheckIn, Offer, OutcomeKind
from edgefleet.protocol.rollout import Verb
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import Answered, begin, heartbeat
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.fleet.selector import parse
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.plans import MODEL, outcome, spec
from support.random_rollouts import DEVICES, SITES, live


def settled(hub: MemoryHub) -> set[int]:
    """The rows that are settled by the rollouts as they are now."""
    desired = Desired(hub.engine.fleet)
    desired.arrange(hub.engine.rollout(state.id) for state in hub.engine.states())
    return {row for row in range(DEVICES) if desired.is_settled(row)}


def offered(hub: MemoryHub) -> set[int]:
    """The rows that get an offer, as a decision for each of them says."""
    decide = hub.engine.admission.decide
    return {row for row in range(DEVICES) if isinstance(decide(row, MODEL, hub.now), Offer)}


@settings(max_examples=8)
@given(st.integers(0, 2**32))
def test_what_is_settled_is_offered_nothing(seed: int):
    chance = random.Random(seed)
    hub = memory_hub(DEVICES, *"123")
    for _ in range(60):
        live(hub, chance)
        mine = offered(hub)
        has_offer = hub.engine.admission.has_offer  # with what it kept since the last change
        assert {row for row in range(DEVICES) if has_offer(row, hub.now)} == mine
        assert not settled(hub) & mine


def complete(hub: MemoryHub, release: str, selector: str, but: int = -1) -> None:
    """A finished rollout that all its devices confirmed, ``but`` one on which it failed."""
    rollout = hub.start(spec(release, 100, selector=selector))
    fleet = hub.engine.fleet
    rows = np.flatnonzero(fleet.selected(parse(selector)))
    for kind, mine in (
        (OutcomeKind.TRIAL_STARTED, rows),
        (OutcomeKind.CONFIRMED, rows[rows != but]),
        (OutcomeKind.TRIAL_FAILED, rows[rows == but]),
    ):
        hub.engine.batch.record(mine, outcome(rollout, release, kind), hub.now)
    number = fleet.models.release_id(MODEL, release)
    fleet.heartbeats(rows, hub.now, np.full(len(rows), number, np.uint32))
    hub.command(rollout, Verb.ADVANCE)


def test_devices_on_the_release_of_the_newest_of_many_rollouts_are_settled():
    hub = memory_hub(DEVICES, *"123")
    complete(hub, "1", "")
    for site in SITES:
        complete(hub, "2", f"site={site}")
    complete(hub, "3", "")
    assert settled(hub) == set(range(DEVICES))
    hub.start(spec("2", 100, selector="site=s1"))
    assert settled(hub) == {row for row in range(DEVICES) if row % 3 != 1}


def test_a_heartbeat_records_what_a_check_in_does():
    one, other = memory_hub(2, "1"), memory_hub(2, "1")
    for hub in (one, other):
        begin(hub.engine, 0, CheckIn(protocol=PROTOCOL, seq=1, full=True), hub.now)
    said = CheckIn(protocol=PROTOCOL, seq=5)
    assert begin(one.engine, 0, said, one.now + 9) == Answered()
    assert heartbeat(other.engine, 0, other.now + 9, seq=5, digest=0, protocol=PROTOCOL)
    assert one.engine.fleet.report(0) == other.engine.fleet.report(0)
    assert other.engine.fleet.last_seq(0) == 5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (0, {"seq": 1}),  # used
        (0, {"seq": 2, "digest": 7}),  # other models
        (0, {"seq": 2, "protocol": PROTOCOL - 1}),
        (1, {"seq": 2}),  # never seen before
    ],
)
def test_a_heartbeat_that_says_more_is_left_to_a_check_in(row: int, said: dict[str, int]):
    hub = memory_hub(2, "1")
    begin(hub.engine, 0, CheckIn(protocol=PROTOCOL, seq=1, full=True), hub.now)
    before = hub.engine.fleet.report(row)
    sent = {"digest": 0, "protocol": PROTOCOL, **said}
    assert not heartbeat(hub.engine, row, hub.now + 9, **sent)
    assert hub.engine.fleet.report(row) == before


def test_an_offer_is_left_to_a_check_in():
    hub = memory_hub(2, *"12")
    begin(hub.engine, 0, CheckIn(protocol=PROTOCOL, seq=1, full=True), hub.now)
    hub.start(spec("2", 100))
    assert not heartbeat(hub.engine, 0, hub.now, seq=2, digest=0, protocol=PROTOCOL)
    found = begin(hub.engine, 0, CheckIn(protocol=PROTOCOL, seq=2), hub.now)
    assert isinstance(found, Answered)
    assert [offer.release for offer in found.offers] == ["2"]


def test_a_device_that_failed_is_not_settled_by_its_own_rollout():
    """It returns to the release of the one before."""
    hub = memory_hub(DEVICES, *"12")
    complete(hub, "1", "")
    complete(hub, "2", "", but=7)
    assert settled(hub) == set(range(DEVICES)) - {7}
