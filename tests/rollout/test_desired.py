"""The desired release of a device, for one device and for all devices at once."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import Verb
from edgefleet.rollout.desired import Desired
from edgefleet.testing import Fate
from support.fleets import CheckedFleet, memory_hub, new_device
from support.plans import MODEL, outcome, spec


def fleet_on_release_1(devices: int = 60) -> CheckedFleet:
    fleet = CheckedFleet(devices)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    return fleet


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_one_at_a_time_and_all_at_once_agree(seed: int):
    """Random rollouts, verbs, reports and running releases: both ways give the same release."""
    chance = random.Random(seed)
    hub = memory_hub(90, *"1234")
    rollouts: list[str] = []
    for _ in range(40):
        hub.now += 1
        try:
            if chance.random() < 0.3:
                site = chance.choice(["", "site=s0", "site!=s0", "site=s2"])
                wanted = spec(chance.choice("1234"), 30, 60, selector=site)
                rollouts.append(hub.start(wanted))
            elif rollouts:
                hub.command(chance.choice(rollouts), chance.choice(list(Verb)))
        except OperatorError:
            continue
        for _ in range(30 if rollouts else 0):
            row = chance.randrange(90)
            hub.engine.fleet.observe(
                row, hub.now, model=MODEL, release=chance.choice("1234"), phase=Phase.IDLE
            )
            state = chance.choice(hub.engine.states())
            kind = chance.choice(list(OutcomeKind))
            hub.engine.intake.record(row, outcome(state.id, state.spec.release, kind))
        if chance.random() < 0.2:
            hub.add_device(f"new{hub.now}", labels={"site": "s0"})
    rows = np.arange(len(hub.engine.fleet))
    desired = Desired(hub.engine.fleet)
    desired.arrange(hub.engine.rollout(state.id) for state in hub.engine.states())
    for row, number in zip(rows, desired.numbers(rows, MODEL).tolist(), strict=True):
        named = hub.engine.fleet.models.release_named(number)
        assert hub.engine.desired(int(row), MODEL) == (named and named[1])


def test_a_device_that_runs_what_it_should_is_offered_nothing():
    fleet = fleet_on_release_1()
    assert all(
        fleet.engine.admission.offers(device.row, fleet.now) == () for device in fleet.by_row
    )
    assert {fleet.engine.desired(device.row, MODEL) for device in fleet.by_row} == {"1"}
    assert {fleet.engine.rollout_of(device.row, MODEL) for device in fleet.by_row} == {"ro-1"}


def test_an_offer_names_all_that_the_device_needs():
    fleet = fleet_on_release_1()
    digest = fleet.publish("2")
    rollout = fleet.start(spec("2", 100))
    (offer,) = fleet.engine.admission.offers(3, fleet.now)
    assert (offer.rollout, offer.action, offer.model, offer.release) == (
        rollout, "install", MODEL, "2",
    )  # fmt: skip
    assert offer.manifest_sha256 == digest
    assert offer.confirm_after_s == 1


def test_a_revert_offer_names_the_reverting_rollout():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 100))
    fleet.finish(rollout)
    fleet.command(rollout, Verb.REVERT)
    (offer,) = fleet.engine.admission.offers(3, fleet.now)
    assert (offer.rollout, offer.action, offer.release) == (rollout, "revert", "1")


def test_a_device_that_lost_its_release_is_offered_the_baseline():
    fleet = fleet_on_release_1()
    fleet.engine.fleet.observe(3, fleet.now, model=None, release=None, phase=Phase.IDLE)
    (offer,) = fleet.engine.admission.offers(3, fleet.now)
    assert (offer.rollout, offer.action, offer.release) == ("ro-1", "install", "1")


def test_a_device_keeps_its_release_when_its_labels_change():
    fleet = fleet_on_release_1()
    fleet.finish(fleet.start(spec("2", 100, selector="site=s1")))
    fleet.engine.fleet.set_facts(1, "generic_x86", {"site": "s2"})
    assert fleet.engine.desired(1, MODEL) == "2"


def test_a_device_that_joins_the_selection_of_a_completed_rollout_gets_its_release():
    fleet = fleet_on_release_1()
    fleet.finish(fleet.start(spec("2", 100, selector="site=s1")))
    fleet.engine.fleet.set_facts(0, "generic_x86", {"site": "s1"})
    assert fleet.engine.desired(0, MODEL) == "2"


def test_a_device_that_failed_a_release_stays_on_the_older_one_when_it_completes():
    fleet = fleet_on_release_1(200)
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if device.row == 77 else Fate.HEALTHY
    ))  # fmt: skip
    fleet.finish(fleet.start(spec("2", 100)))
    assert fleet.on_release()["2"] == 199
    assert (fleet.engine.desired(77, MODEL), fleet.by_row[77].running) == ("1", "1")


def test_a_release_that_a_halted_rollout_gave_is_what_a_newer_bad_one_falls_back_to():
    fleet = fleet_on_release_1()
    halted = fleet.start(spec("2", 50, 100))
    fleet.settle(halted, 2)
    fleet.command(halted, Verb.HALT)
    on_2 = {device.row for device in fleet.by_row if device.running == "2"}
    assert len(on_2) == 30
    fleet.publish("3")
    bad = fleet.start(spec("3", 100))
    fleet.settle(bad, 2)
    assert fleet.on_release()["3"] == 60
    fleet.command(bad, Verb.REVERT)
    fleet.finish(bad)
    assert {device.row for device in fleet.by_row if device.running == "2"} == on_2
    assert fleet.on_release()["1"] == 30


@pytest.mark.parametrize("kind", [OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED])
def test_what_a_device_failed_in_one_rollout_no_other_rollout_offers_it(kind: OutcomeKind):
    fleet = fleet_on_release_1()
    first = fleet.start(spec("2", 50, 100))
    row = next(d.row for d in fleet.by_row if fleet.engine.admission.offers(d.row, fleet.now))
    fleet.record(row, outcome(first, "2", kind))
    fleet.command(first, Verb.HALT)
    second = fleet.start(spec("2", 100))
    assert fleet.engine.admission.offers(row, fleet.now) == ()
    fleet.invariants.check_counts = lambda *_: None  # the device is in the cut, but in no account
    view = fleet.finish(second)
    assert (view.status.value, fleet.by_row[row].running) == ("completed", "1")


def test_a_device_that_returns_with_a_reverted_release_reverts_before_a_newer_one():
    fleet = fleet_on_release_1()
    bad = fleet.start(spec("2", 100))
    fleet.finish(bad)
    back = fleet.now + 60
    for device in fleet.by_row[:2]:
        device.offline = lambda now: now < back
    fleet.tick(10)
    fleet.command(bad, Verb.REVERT)
    fleet.finish(bad)
    fleet.publish("3")
    newer = fleet.start(spec("3", 100))
    fleet.jump(back - fleet.now)
    fleet.engine.fleet.observe(0, fleet.now, model=MODEL, release="2", phase=Phase.IDLE)
    (offer,) = fleet.engine.admission.offers(0, fleet.now)
    assert (offer.rollout, offer.action, offer.release) == (bad, "revert", "1")
    fleet.engine.fleet.observe(0, fleet.now, model=MODEL, release="1", phase=Phase.IDLE)
    (offer,) = fleet.engine.admission.offers(0, fleet.now)
    assert (offer.rollout, offer.action, offer.release) == (newer, "install", "3")


def test_a_device_that_enrols_while_a_wave_is_open_is_in_no_account_of_it():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 50, 100))
    opened = fleet.view(rollout)
    assert opened.waves[0].cut == 30
    for number in range(60):
        fleet.enrol(new_device(f"new{number}"))
    then = fleet.view(rollout)
    assert (then.evidence.cut, then.waves[0].cut) == (30, 30)
    newcomers = {fleet.engine.desired(device.row, MODEL) for device in fleet.by_row[60:]}
    assert newcomers == {None}  # the rollout of release 1 does not follow newcomers either
