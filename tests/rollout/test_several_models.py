"""Several models on one device: each is decided apart, and one is in trial at a time."""

from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import CheckIn, ModelReport, Offer, OutcomeKind, Phase, Telemetry
from edgefleet.protocol.rollout import ExposureSpec, Status, Verb
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout import plan
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.checkin import Answered
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.other_trial import OtherTrial
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.fleet.device_models import DeviceModels
from edgefleet.rollout.fleet.release_sets import ReleaseSet
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.intake import Intake
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.many_models import ManyModels, of, publish
from support.plans import GATE, outcome

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
FAILED, WITHDRAWN = OutcomeKind.TRIAL_FAILED, OutcomeKind.WITHDRAWN


def fleet(devices: int = 6) -> tuple[MemoryHub, list[ManyModels]]:
    """Devices that run detector 1, which a completed rollout gave them; digits is published."""
    hub = memory_hub(devices)
    publish(hub, "detector", "1", "2", "3")
    publish(hub, "digits", "1", "2")
    every = [ManyModels(hub, row) for row in range(devices)]
    complete(hub, hub.start(of("detector", "1", follow=True)))
    for device in every:
        device.has("detector", "1")
        device.check_in()
        assert device.answer.offers == ()
    return hub, every


def complete(hub: MemoryHub, rollout: str) -> None:
    while hub.view(rollout).status is Status.RUNNING:
        hub.command(rollout, Verb.ADVANCE)
    hub.now += 1


def offered(device: ManyModels) -> dict[str, str]:
    return {offer.model: offer.release for offer in device.check_in().offers}


def codes(hub: MemoryHub, row: int) -> dict[str | None, WaitCode]:
    waits = hub.engine.why_device(row, hub.now).waits
    return {wait.model: wait.code for wait in waits if wait.code is not WaitCode.OFFLINE}


def two_staged() -> tuple[MemoryHub, ManyModels, dict[str, Offer], str, str]:
    """A device that is offered detector 2 by the older and digits 1 by the newer rollout."""
    hub, (device, *_) = fleet()
    detector = hub.start(of("detector", "2"))
    hub.now += 1
    digits = hub.start(of("digits", "1"))
    offers = {offer.model: offer for offer in device.check_in().offers}
    return hub, device, offers, detector, digits


# The study's edge cases.


def test_second_model_is_added_and_first_keeps_serving() -> None:
    hub, (device, *_) = fleet()
    rollout = hub.start(of("digits", "1"))
    (offer,) = device.check_in().offers
    assert (offer.model, offer.release, offer.action) == ("digits", "1", "install")
    assert rollout in device.check_in(device.stage(offer)).acked[0]
    device.try_it(offer)
    device.check_in()
    device.confirm(offer)
    assert device.answer.offers == (), "the first model is where it should be"
    figures = hub.engine.fleet.figures(hub.now)
    assert figures.on_release == {"detector": {"1": 6}, "digits": {"1": 1}}
    assert [hub.engine.desired(0, model) for model in ("detector", "digits")] == ["1", "1"]


def test_two_rollouts_of_one_model_overlap_is_refused() -> None:
    hub, _ = fleet()
    hub.start(of("detector", "2"))
    with pytest.raises(OperatorError) as caught:
        hub.plan(of("detector", "3"))
    assert caught.value.code == "rollout_overlap"
    assert hub.view(hub.start(of("digits", "1"))).status is Status.RUNNING


def test_two_models_staged_hub_admits_one() -> None:
    hub, device, offers, detector, digits = two_staged()
    assert list(offers) == ["detector", "digits"], "the older rollout first"
    starts = [device.stage(offers[model]) for model in ("digits", "detector")]
    answer = device.check_in(*starts)
    assert answer.acked == (starts[1].id,), "the start of the older rollout"
    assert (hub.view(detector).exposed, hub.view(digits).exposed) == (1, 0)
    wait = next(w for w in hub.engine.why_device(0, hub.now).waits if w.model == "digits")
    assert wait.code is WaitCode.OTHER_TRIAL
    assert f"Release 2 of detector (rollout {detector}) is in trial" in wait.text
    device.try_it(offers["detector"])
    assert device.check_in(starts[0]).acked == ()
    device.confirm(offers["detector"])
    assert device.check_in(starts[0]).acked == (starts[0].id,)


def test_a_start_waits_while_another_model_goes_back() -> None:
    hub, device, offers, *_ = two_staged()
    device.has("detector", "2", Phase.REVERTING)
    assert device.check_in(device.stage(offers["digits"])).acked == ()
    device.has("detector", "1")
    assert len(device.check_in(device.outcome(offers["digits"], STARTED)).acked) == 1
    assert hub.engine.fleet.models.phase(0, "detector") is Phase.IDLE


def test_answer_to_start_lost_same_unit_is_asked_again() -> None:
    hub, device, offers, detector, digits = two_staged()
    starts = [device.stage(offer) for offer in offers.values()]
    first = device.check_in(*starts).acked  # and the answer is lost
    assert device.check_in(*starts).acked == first == (starts[0].id,)
    assert (hub.view(detector).exposed, hub.view(digits).exposed) == (1, 0)


def test_patience_stands_while_another_model_is_on_trial() -> None:
    """A device that only waits for another model's trial is no straggler, however long it takes."""
    hub, devices = fleet()
    hub.start(of("detector", "2", gate=replace(GATE, silence_s=1e6, patience_s=1e6)))
    hub.now += 1
    digits = hub.start(of("digits", "1"))
    for device in devices:
        offers = {offer.model: offer for offer in device.check_in().offers}
        if device.row == 0:
            device.check_in(device.stage(offers["detector"]))
            device.try_it(offers["detector"])
            device.stage(offers["digits"])
        else:
            device.check_in(device.stage(offers["digits"]))
            device.try_it(offers["digits"])
            device.confirm(offers["digits"])
    for _ in range(100):  # five times as long as the patience
        hub.now += 1
        for device in devices:
            device.check_in()
        hub.evaluate()
    view = hub.view(digits)
    assert (view.status, view.evidence.offered, view.evidence.healthy) == (Status.RUNNING, 1, 5)
    waits = {wait.code: wait for wait in view.why.waits}
    assert waits[WaitCode.OTHER_TRIAL].devices == 1
    assert waits[WaitCode.OTHER_TRIAL].first == ("d00000",)
    assert waits[WaitCode.STRAGGLERS].devices == 0, "it is no straggler"
    devices[0].has("detector", "2")
    offer = offers_of(devices[0])["digits"]
    devices[0].check_in(devices[0].outcome(offer, STARTED), detector_confirmed(hub))
    assert hub.view(digits).exposed == 5, "the trial of detector ended in the same check-in"
    devices[0].check_in(devices[0].outcome(offer, STARTED))
    devices[0].confirm(offer)
    for _ in range(10):
        hub.now += 1
        for device in devices:
            device.check_in()
        hub.evaluate()
    assert hub.view(digits).status is Status.COMPLETED


def offers_of(device: ManyModels) -> dict[str, Offer]:
    return {offer.model: offer for offer in device.check_in().offers}


def detector_confirmed(hub: MemoryHub):
    rollout = next(one.id for one in hub.states() if one.spec.release == "2")
    return outcome(rollout, "2", CONFIRMED)


def test_a_straggler_with_another_model_is_still_a_straggler() -> None:
    hub, devices = fleet()
    digits = hub.start(of("digits", "1"))
    for device in devices[1:]:
        (offer,) = device.check_in().offers
        device.check_in(device.stage(offer))
        device.try_it(offer)
        device.confirm(offer)
    for _ in range(60):
        hub.now += 1
        for device in devices:
            device.check_in()
        hub.evaluate()
    assert hub.view(digits).status is Status.COMPLETED, "the patience for the first is over"


def test_digest_differs_after_hub_restore_full_list_once() -> None:
    hub, devices = fleet()
    device = devices[0]
    device.has("digits", "1")
    device.check_in()
    before, lists = hub.engine.fleet.models.reports(0), device.lists
    hub.restart()
    answer = device.check_in()
    assert (answer.wants_models, answer.offers) == (True, ()), "nothing is offered on a guess"
    for _ in range(5):
        assert not device.check_in().wants_models
    assert device.lists == lists + 1
    assert hub.engine.fleet.models.reports(0) == before


def test_a_lost_answer_is_found_by_the_digest() -> None:
    _, (device, *_) = fleet()
    device.has("digits", "1")
    device.changed = {}  # the check-in with this entry never arrived
    assert device.check_in().wants_models
    assert not device.check_in().wants_models


def test_protocol_2_agent_is_not_offered_a_second_model() -> None:
    hub, (new, old, *_) = fleet()
    said = CheckIn(protocol=ONE_MODEL, seq=99, model="detector", release="1")
    hub.check_in(old.row, said)
    with pytest.raises(OperatorError, match=r"on 1 device,.*; 5 devices are eligible") as caught:
        hub.plan(of("digits", "1"))
    assert caught.value.code == "agent_one_model"
    digits = hub.plan(of("digits", "1", skip_ineligible=True))
    view = hub.view(digits)
    assert (view.ineligible, view.adds, view.had_model) == ({"agent_one_model": 1}, 5, 0)
    hub.command(digits, Verb.START)
    assert offered(new) == {"digits": "1"}
    answer = hub.check_in(old.row, replace(said, seq=100))
    assert isinstance(answer, Answered)
    assert answer.offers == ()
    waits = hub.engine.why_device(old.row, hub.now).waits
    assert WaitCode.INELIGIBLE in {wait.code for wait in waits}
    assert any("has one model, and this device runs detector" in wait.text for wait in waits)
    hub.start(of("detector", "2"))
    answer = hub.check_in(old.row, replace(said, seq=101))
    assert isinstance(answer, Answered)
    assert [offer.release for offer in answer.offers] == ["2"], "releases of its model go on"


def test_protocol_2_agent_is_not_offered_what_it_had_before_its_model_was_replaced() -> None:
    """An older hub replaced detector by digits on this device; detector's ledger has it healthy."""
    hub, (_, old, *_) = fleet()
    hub.record(old.row, outcome("ro-1", "1", CONFIRMED))
    complete(hub, hub.start(of("digits", "1")))
    said = CheckIn(protocol=ONE_MODEL, seq=99, model="digits", release="1")
    answer = hub.check_in(old.row, said)
    assert isinstance(answer, Answered)
    assert answer.offers == ()


def test_a_new_protocol_2_agent_gets_one_model_and_keeps_it() -> None:
    hub, _ = fleet()
    complete(hub, hub.start(of("digits", "1", follow=True)))
    row = hub.add_device("newcomer")
    said = CheckIn(protocol=ONE_MODEL, seq=1)
    for seq in range(1, 4):
        answer = hub.check_in(row, replace(said, seq=seq, phase=Phase.FETCHING))
        assert isinstance(answer, Answered)
        assert [offer.model for offer in answer.offers] == ["detector"], "of the older rollout"
    answer = hub.check_in(row, replace(said, seq=4, model="digits", release="1"))
    assert isinstance(answer, Answered)
    assert answer.offers == ()


def test_telemetry_of_equal_release_names_of_two_models() -> None:
    hub, devices = fleet()
    detector = hub.start(of("detector", "2"))
    digits = hub.start(of("digits", "2"))
    for device in devices[:2]:
        for offer in device.check_in().offers:
            hub.record(device.row, device.outcome(offer, STARTED))
            hub.record(device.row, device.outcome(offer, CONFIRMED))
            device.has(offer.model, offer.release)
    figures = Telemetry(
        release="2", requests=100, errors=0, confidence_sum=90.0, confidence_count=100,
        latency_us_p50=1, latency_us_p95=2, memory_mib=3, model="digits",
    )  # fmt: skip
    devices[0].check_in(telemetry=figures)
    devices[1].check_in(telemetry=replace(figures, model="detector", requests=7))
    requests = [hub.view(rollout).evidence.canary.requests for rollout in (detector, digits)]
    assert requests == [7, 100]


def test_freeze_lets_all_units_go_back() -> None:
    hub, (device, *_) = fleet()
    complete(hub, hub.start(of("digits", "1")))
    rollouts = [hub.start(of("detector", "2")), hub.start(of("digits", "2"))]
    for model in ("detector", "digits"):
        device.has(model, "2")
    device.check_in()
    hub.freeze()
    for rollout in rollouts:
        hub.command(rollout, Verb.REVERT)
    back = {(offer.model, offer.action, offer.release) for offer in device.check_in().offers}
    assert back == {("detector", "revert", "1"), ("digits", "revert", "1")}


def test_a_revert_takes_back_its_own_model_only() -> None:
    """The other model waits for its next release meanwhile."""
    hub, (device, *_) = fleet()
    complete(hub, hub.start(of("digits", "1")))
    bad = hub.start(of("digits", "2"))
    device.has("digits", "2")
    device.check_in()
    hub.command(bad, Verb.REVERT)
    assert offered(device) == {"digits": "1"}
    hub.start(of("detector", "2"))
    assert {(one.model, one.action, one.release) for one in device.check_in().offers} == {
        ("digits", "revert", "1"), ("detector", "install", "2"),
    }  # fmt: skip
    device.has("digits", "1")
    assert offered(device) == {"detector": "2"}


def test_device_quarantined_for_one_model_gets_the_other() -> None:
    hub, (device, *_) = fleet()
    for release in ("2", "3"):
        rollout = hub.start(of("detector", release))
        hub.record(device.row, replace(outcome(rollout, release, FAILED), id=f"failed {release}"))
        hub.command(rollout, Verb.HALT)
        hub.now += 1
    publish(hub, "detector", "4")
    hub.start(of("detector", "4"))
    hub.start(of("digits", "1"))
    assert offered(device) == {"digits": "1"}
    assert codes(hub, device.row)["detector"] is WaitCode.QUARANTINED


def test_newcomer_gets_completed_models_oldest_first_one_trial_at_a_time() -> None:
    hub, _ = fleet()
    publish(hub, "classifier", "1")
    for model in ("digits", "classifier"):
        complete(hub, hub.start(of(model, "1", follow=True)))
    device = ManyModels(hub, hub.add_device("newcomer"))
    tried: list[str] = []
    offers = device.check_in().offers
    assert [offer.model for offer in offers] == ["detector", "digits", "classifier"]
    waiting = {offer: device.stage(offer) for offer in offers}
    while waiting:
        acked = device.check_in(*waiting.values()).acked
        assert len(acked) == 1
        (offer,) = (one for one, start in waiting.items() if start.id in acked)
        tried.append(offer.model)
        del waiting[offer]
        device.try_it(offer)
        device.check_in(*waiting.values())
        assert device.answer.acked == ()
        device.confirm(offer)
    assert tried == ["detector", "digits", "classifier"]
    assert offered(device) == {}


def test_a_limit_of_the_older_rollout_does_not_hold_up_the_newer() -> None:
    hub, devices = fleet()
    hub.start(of("detector", "2", exposure=ExposureSpec(first=1)))
    hub.now += 1
    hub.start(of("digits", "1"))
    first = offers_of(devices[0])["detector"]
    devices[0].check_in(devices[0].stage(first))
    offers = offers_of(devices[1])
    starts = {model: devices[1].stage(offer) for model, offer in offers.items()}
    assert devices[1].check_in(*starts.values()).acked == (starts["digits"].id,)


ON_ITS_WAY = {WaitCode.CHECK_IN, WaitCode.FETCHING, WaitCode.REVERTING, WaitCode.TRIAL}
STARTS = {
    WaitCode.FREEZE, WaitCode.EXPOSURE, WaitCode.PACE, WaitCode.QUARANTINED, WaitCode.OTHER_TRIAL,
}  # fmt: skip

# One for many: ``why`` and the batches agree with ``decide``.


def shaken(seed: int) -> tuple[MemoryHub, list[ManyModels], Random]:
    chance = Random(seed)
    hub, devices = fleet(20)
    publish(hub, "classifier", "1", "2")
    return hub, devices, chance


def shake(hub: MemoryHub, devices: list[ManyModels], chance: Random) -> None:
    """One random event: a rollout, a verb, a report of a device."""
    hub.now += 1
    models = {"detector": "123", "digits": "12", "classifier": "12"}
    device = chance.choice(devices)
    match chance.randrange(8):
        case 0:
            model = chance.choice(list(models))
            plan = of(model, chance.choice(models[model]), 50, 100)
            try:
                hub.start(replace(plan, selector=chance.choice(("", "site=s0"))))
            except OperatorError:
                return
        case 1:
            try:
                hub.command(chance.choice(hub.states()).id, chance.choice(list(Verb)))
            except OperatorError:
                return
        case 2 | 3:
            model = chance.choice(list(models))
            release = chance.choice((None, *models[model]))
            device.has(model, release, chance.choice(list(Phase)))
            device.check_in()
        case 4:
            hub.freeze(frozen=chance.random() < 0.2)
        case 5:
            hub.evaluate()
        case _:
            for offer in device.check_in().offers[:1]:
                kinds = (STARTED, CONFIRMED, FAILED, OutcomeKind.REFUSED, WITHDRAWN)
                device.check_in(device.outcome(offer, chance.choice(kinds)))


@pytest.mark.parametrize("seed", range(6))
def test_no_offer_if_and_only_if_why_names_what_decide_returned(seed: int) -> None:
    hub, devices, chance = shaken(seed)
    for _ in range(150):
        shake(hub, devices, chance)
        for row in range(0, 20, 3):
            decisions = {
                model: hub.engine.admission.decide(row, model, hub.now)
                for model in ("classifier", "detector", "digits")
            }
            offers = hub.engine.admission.offers(row, hub.now)
            assert {one.model: one for one in offers} == {
                model: one for model, one in decisions.items() if isinstance(one, Offer)
            }
            found = summaries(hub, row)
            for model, decision in decisions.items():
                code = found.get(model, WaitCode.NO_ROLLOUT)
                if isinstance(decision, Offer):
                    assert code in ON_ITS_WAY or code in STARTS, (row, model, decision, code)
                elif decision.code in (WaitCode.DONE, WaitCode.NO_ROLLOUT):
                    assert code not in (WaitCode.CHECK_IN, WaitCode.FETCHING)
                    assert code not in STARTS, (row, model, decision, code)
                else:
                    assert code is not WaitCode.CHECK_IN, (row, model, decision)


def summaries(hub: MemoryHub, row: int) -> dict[str, WaitCode]:
    """The code that summarises each model of a device. One model alone is not named."""
    waits = hub.engine.why_device(row, hub.now).waits
    found = {wait.model: wait.code for wait in waits if wait.code is not WaitCode.OFFLINE}
    if set(found) == {None}:
        return dict.fromkeys(("detector",), found[None])  # every device has it, or had it
    return {model: code for model, code in found.items() if model is not None}


@pytest.mark.parametrize("seed", range(6))
def test_batches_answer_as_the_devices_are_answered_one_by_one(seed: int) -> None:
    hub, devices, chance = shaken(seed)
    rows = np.arange(20)
    for number in range(120):
        shake(hub, devices, chance)
        if number % 5 == 0:
            old = chance.randrange(20)
            said = CheckIn(protocol=ONE_MODEL, seq=1 << 39 | number, model="digits", release="1")
            hub.check_in(old, said)
            devices[old].restored(said.seq)
        engine = hub.engine
        one = {row: engine.admission.offers(row, hub.now) for row in rows.tolist()}
        parts = engine.batch.answers(rows, hub.now)
        assert {row: offers for offers, told in parts for row in told.tolist()} == one
        wanted = engine.batch.wanted(rows)
        assert all(wanted[row] for row, offers in one.items() if offers and idle(hub, row))
        desired = Desired(engine.fleet)
        desired.arrange(engine.rollout(state.id) for state in engine.states())
        for model in ("classifier", "detector", "digits"):
            numbers = desired.numbers(rows, model)
            named = [engine.fleet.models.release_named(one) for one in numbers.tolist()]
            assert [name and name[1] for name in named] == [
                engine.desired(row, model) for row in rows.tolist()
            ]


def idle(hub: MemoryHub, row: int) -> bool:
    return hub.engine.fleet.models.activity(row) == ()


@pytest.mark.parametrize("seed", range(6))
def test_batches_admit_as_the_devices_are_admitted_one_by_one(seed: int) -> None:
    twins = [shaken(seed) for _ in range(2)]
    for number in range(80):
        for hub, devices, chance in twins:
            shake(hub, devices, chance)
        (one, _, chance), (many, _, _) = twins
        states = [state for state in one.states() if state.started_at is not None]
        state = states[number % len(states)]
        start = outcome(state.id, state.spec.release, STARTED)
        rows = [row for row in range(20) if (row * 7 + number) % 3]
        singly = [one.engine.admission.admit(row, start, one.now) for row in rows]
        together = many.engine.batch.admit(np.array(rows), start, many.now)
        assert together.tolist() == singly
        for hub, _, _ in twins:
            for row, is_admitted in zip(rows, singly, strict=True):
                if is_admitted:
                    hub.engine.intake.record(row, start, hub.now)
        views = [hub.view(state.id).evidence for hub, _, _ in twins]
        assert views[0] == views[1]
        progress = [hub.engine.rollout(state.id).reservations.progress_at for hub, _, _ in twins]
        assert progress[0] == progress[1]


@pytest.mark.parametrize("seed", range(3))
def test_no_device_has_two_models_in_trial_by_its_starts(seed: int) -> None:
    """One start is admitted at a time, whatever devices ask for."""
    hub, devices, chance = shaken(seed)
    for model, release in (("detector", "2"), ("digits", "1"), ("classifier", "1")):
        hub.start(of(model, release))
        hub.now += 1
    for _ in range(300):
        device = chance.choice(devices)
        offers = device.check_in().offers
        if not offers:
            continue
        starts = [device.stage(offer) for offer in chance.sample(offers, len(offers))]
        device.check_in(*starts)
        in_trial = [
            active
            for active in (hub.engine.rollout(state.id) for state in hub.states())
            if active.state.status is Status.RUNNING
            and active.ledger.standing(device.row).name == "TRIAL"
        ]
        assert len(in_trial) <= 1
        if in_trial and chance.random() < 0.5:
            offer = in_trial[0].offer
            device.confirm(offer)


def test_a_model_that_is_on_no_list_has_left_the_device() -> None:
    hub, (device, *_) = fleet()
    device.has("digits", "1")
    device.check_in()
    device.has("digits", None)
    device.check_in()
    assert [one.model for one in hub.engine.fleet.models.reports(0)] == ["detector"]
    assert not device.answer.wants_models
    del device.models["digits"]
    assert not device.check_in().wants_models
    assert ModelReport(model="digits").is_on_device is False


# Planted bugs, each found by a test above.


def neighbour_goes_back(patch: pytest.MonkeyPatch) -> None:
    """A revert of one model is an order for each model of the device."""
    for name in ("withdrawn_by", "proven"):
        right = getattr(Desired, name)

        def of_any(self: Desired, row: int, _model: str, right=right) -> object:
            return next(
                (by for one in ("digits", "detector") if (by := right(self, row, one))), None
            )

        patch.setattr(Desired, name, of_any)


def second_model_replaces_the_first(patch: pytest.MonkeyPatch) -> None:
    """A report of one model forgets the others."""
    right = DeviceModels.intern

    def intern(
        self: DeviceModels, row: int, reports: tuple[ModelReport, ...], *, full: bool
    ) -> tuple[int, int]:
        return right(self, row, reports, full=full or bool(reports))

    patch.setattr(DeviceModels, "intern", intern)


def two_trials_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OtherTrial, "blocks", lambda *_: False)


def digest_never_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeviceModels, "digest_differs", lambda *_: False)


def patience_runs_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FleetConstraints, "patient_rows", lambda *_: np.zeros(0, np.int64))


def overlap_of_any_model(patch: pytest.MonkeyPatch) -> None:
    """Rollouts of two models count as overlapping."""
    right = plan.check_free

    def check_free(
        scope: Scope, _model: str, others: list[ActiveRollout], statuses: object
    ) -> None:
        for other in others:
            right(scope, other.model, (other,), statuses)

    patch.setattr(plan, "check_free", check_free)


def agent_gets_a_second_model(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReleaseSet, "has_other", lambda *_: False)


def telemetry_by_release_name_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Intake, "_is_of", lambda *_: True)


PLANTED = {
    second_model_replaces_the_first: test_second_model_is_added_and_first_keeps_serving,
    overlap_of_any_model: test_two_rollouts_of_one_model_overlap_is_refused,
    two_trials_at_once: test_two_models_staged_hub_admits_one,
    patience_runs_in_the_queue: test_patience_stands_while_another_model_is_on_trial,
    digest_never_compared: test_digest_differs_after_hub_restore_full_list_once,
    agent_gets_a_second_model: test_protocol_2_agent_is_not_offered_a_second_model,
    telemetry_by_release_name_alone: test_telemetry_of_equal_release_names_of_two_models,
    neighbour_goes_back: test_a_revert_takes_back_its_own_model_only,
}


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, OperatorError, pytest.fail.Exception)):
        PLANTED[bug]()
