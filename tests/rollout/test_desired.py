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
from support.toy_rollout import MODEL, Behaviour, ToyShell, outcome, spec


def shell_on_release_1(devices: int = 60) -> ToyShell:
    shell = ToyShell(devices)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    return shell


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_one_at_a_time_and_all_at_once_agree(seed: int):
    """Random rollouts, verbs, reports and running releases: both ways give the same release."""
    chance = random.Random(seed)
    shell = ToyShell(90)
    for release in "1234":
        shell.publish(release)
    rollouts: list[str] = []
    for _ in range(40):
        shell.now += 1
        try:
            if chance.random() < 0.3:
                site = chance.choice(["", "site=s0", "site!=s0", "site=s2"])
                wanted = spec(chance.choice("1234"), 30, 60, selector=site)
                rollouts.append(shell.start(wanted))
            elif rollouts:
                shell.command(chance.choice(rollouts), chance.choice(list(Verb)))
        except OperatorError:
            continue
        for _ in range(30 if rollouts else 0):
            row = chance.randrange(90)
            shell.engine.fleet.observe(
                row, shell.now, model=MODEL, release=chance.choice("1234"), phase=Phase.IDLE
            )
            state = chance.choice(shell.engine.states())
            kind = chance.choice(list(OutcomeKind))
            shell.engine.intake.record(row, outcome(state.id, state.spec.release, kind))
        if chance.random() < 0.2:
            shell.enrol(f"new{shell.now}", site="s0")
    rows = np.arange(len(shell.devices))
    desired = Desired(shell.engine.fleet)
    desired.arrange(shell.engine.rollout(state.id) for state in shell.engine.states())
    for row, number in zip(rows, desired.numbers(rows, MODEL).tolist(), strict=True):
        named = shell.engine.fleet.models.release_named(number)
        assert shell.engine.desired(int(row), MODEL) == (named and named[1])


def test_a_device_that_runs_what_it_should_is_offered_nothing():
    shell = shell_on_release_1()
    assert all(
        shell.engine.admission.offers(device.row, shell.now) == () for device in shell.devices
    )
    assert {shell.engine.desired(device.row, MODEL) for device in shell.devices} == {"1"}
    assert {shell.engine.rollout_of(device.row, MODEL) for device in shell.devices} == {"ro-1"}


def test_an_offer_names_all_that_the_device_needs():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 100))
    (offer,) = shell.engine.admission.offers(3, shell.now)
    assert (offer.rollout, offer.action, offer.model, offer.release) == (
        rollout, "install", MODEL, "2",
    )  # fmt: skip
    assert offer.manifest_sha256 == "2" * 64
    assert offer.confirm_after_s == 1


def test_a_revert_offer_names_the_reverting_rollout():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 100))
    shell.run(rollout)
    shell.command(rollout, Verb.REVERT)
    (offer,) = shell.engine.admission.offers(3, shell.now)
    assert (offer.rollout, offer.action, offer.release) == (rollout, "revert", "1")


def test_a_device_that_lost_its_release_is_offered_the_baseline():
    shell = shell_on_release_1()
    shell.engine.fleet.observe(3, shell.now, model=None, release=None, phase=Phase.IDLE)
    (offer,) = shell.engine.admission.offers(3, shell.now)
    assert (offer.rollout, offer.action, offer.release) == ("ro-1", "install", "1")


def test_a_device_keeps_its_release_when_its_labels_change():
    shell = shell_on_release_1()
    shell.run(shell.start(spec("2", 100, selector="site=s1")))
    shell.engine.fleet.set_facts(1, "generic_x86", {"site": "s2"})
    assert shell.engine.desired(1, MODEL) == "2"


def test_a_device_that_joins_the_selection_of_a_completed_rollout_gets_its_release():
    shell = shell_on_release_1()
    shell.run(shell.start(spec("2", 100, selector="site=s1")))
    shell.engine.fleet.set_facts(0, "generic_x86", {"site": "s1"})
    assert shell.engine.desired(0, MODEL) == "2"


def test_a_device_that_failed_a_release_stays_on_the_older_one_when_it_completes():
    shell = shell_on_release_1(200)
    shell.publish("2", lambda device: (
        Behaviour.FAILS_TRIAL if device.row == 77 else Behaviour.GOOD
    ))  # fmt: skip
    shell.run(shell.start(spec("2", 100)))
    assert shell.on_release("2") == 199
    assert (shell.engine.desired(77, MODEL), shell.devices[77].running) == ("1", "1")


def test_a_release_that_a_halted_rollout_gave_is_what_a_newer_bad_one_falls_back_to():
    shell = shell_on_release_1()
    halted = shell.start(spec("2", 50, 100))
    shell.settle(halted, 2)
    shell.command(halted, Verb.HALT)
    on_2 = {device.row for device in shell.devices if device.running == "2"}
    assert len(on_2) == 30
    shell.publish("3")
    bad = shell.start(spec("3", 100))
    shell.settle(bad, 2)
    assert shell.on_release("3") == 60
    shell.command(bad, Verb.REVERT)
    shell.run(bad)
    assert {device.row for device in shell.devices if device.running == "2"} == on_2
    assert shell.on_release("1") == 30


@pytest.mark.parametrize("kind", [OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED])
def test_what_a_device_failed_in_one_rollout_no_other_rollout_offers_it(kind: OutcomeKind):
    shell = shell_on_release_1()
    first = shell.start(spec("2", 50, 100))
    row = next(d.row for d in shell.devices if shell.engine.admission.offers(d.row, shell.now))
    shell.store(row, outcome(first, "2", kind))
    shell.command(first, Verb.HALT)
    second = shell.start(spec("2", 100))
    assert shell.engine.admission.offers(row, shell.now) == ()
    shell.check_counts = lambda *_: None  # the device is in the cut, but in no account
    view = shell.run(second)
    assert (view.status.value, shell.devices[row].running) == ("completed", "1")


def test_a_device_that_returns_with_a_reverted_release_reverts_before_a_newer_one():
    shell = shell_on_release_1()
    bad = shell.start(spec("2", 100))
    shell.run(bad)
    back = shell.now + 60
    for device in shell.devices[:2]:
        device.away = lambda now: now < back
    shell.tick(10)
    shell.command(bad, Verb.REVERT)
    shell.run(bad)
    shell.publish("3")
    newer = shell.start(spec("3", 100))
    shell.now = back
    shell.engine.fleet.observe(0, shell.now, model=MODEL, release="2", phase=Phase.IDLE)
    (offer,) = shell.engine.admission.offers(0, shell.now)
    assert (offer.rollout, offer.action, offer.release) == (bad, "revert", "1")
    shell.engine.fleet.observe(0, shell.now, model=MODEL, release="1", phase=Phase.IDLE)
    (offer,) = shell.engine.admission.offers(0, shell.now)
    assert (offer.rollout, offer.action, offer.release) == (newer, "install", "3")


def test_a_device_that_enrols_while_a_wave_is_open_is_in_no_account_of_it():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 50, 100))
    opened = shell.view(rollout)
    assert opened.waves[0].cut == 30
    for number in range(60):
        shell.enrol(f"new{number}")
    then = shell.view(rollout)
    assert (then.evidence.cut, then.waves[0].cut) == (30, 30)
    newcomers = {shell.engine.desired(device.row, MODEL) for device in shell.devices[60:]}
    assert newcomers == {None}  # the rollout of release 1 does not follow newcomers either
