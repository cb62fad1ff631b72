"""A release goes only where it fits into the memory beside the other models of a device."""

from collections.abc import Mapping
from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.cli.rollout.dry_run import trial_lines, try_plan
from edgefleet.protocol.device import CheckIn, ModelReport, Offer, OutcomeKind, digest
from edgefleet.protocol.rollout import RolloutSpec, Status, Verb
from edgefleet.protocol.version import ONE_MODEL, PROTOCOL
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.lifecycle.state import WITHDRAWN
from edgefleet.rollout.plan_fleet import compose
from edgefleet.testing import MemoryHub
from support.plans import START, manifest, outcome, spec

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
BIG, SMALL, UNLIMITED = 512, 300, 0


def publish(hub: MemoryHub, model: str, release: str, limits: Mapping[str, int]) -> None:
    plain = manifest(release, sorted(limits))
    variants = tuple(replace(one, memory_limit_mib=limits[one.profile]) for one in plain.variants)
    sha256 = f"{model}-{release}".encode().hex().ljust(64, "0")[:64]
    hub.add_release(replace(plain, model=model, variants=variants), sha256)


def fleet(*sizes: int) -> MemoryHub:
    """A hub with a device for each size of the memory for models, in MiB."""
    hub = MemoryHub(now=START)
    for row, size in enumerate(sizes):
        hub.add_device(f"d{row}", models_memory_mib=size)
        hub.engine.fleet.set_protocol(row, PROTOCOL)
    for model, release, limit in (
        ("digits", "1", 100), ("digits", "2", 200), ("faces", "1", 150), ("faces", "2", 250),
    ):  # fmt: skip
        publish(hub, model, release, {"generic_x86": limit})
    return hub


def several(hub: MemoryHub, row: int, *reports: ModelReport) -> None:
    """Report all models of a device."""
    check_in = CheckIn(protocol=PROTOCOL, seq=1, models=reports, full=True, digest=digest(reports))
    hub.engine.fleet.observe_models(row, hub.now, check_in)


def plan_of(model: str, release: str, *, skip: bool = False, selector: str = "") -> RolloutSpec:
    wanted = spec(release, 100, selector=selector)
    return replace(wanted, model=model, skip_ineligible=skip)


def completed(hub: MemoryHub, model: str, release: str, *, skip: bool = False) -> str:
    rollout = hub.start(plan_of(model, release, skip=skip))
    hub.command(rollout, Verb.ADVANCE)
    assert hub.view(rollout).status is Status.COMPLETED
    return rollout


def eligible(hub: MemoryHub, rollout: str) -> list[int]:
    return hub.engine.rollout(rollout).scope.eligible_rows().tolist()


def decision(hub: MemoryHub, row: int, model: str) -> Offer | Blocked:
    return hub.engine.admission.decide(row, model, hub.now)


def test_a_plan_that_does_not_fit_is_refused_with_devices_and_mib() -> None:
    hub = fleet(BIG, BIG, SMALL, SMALL, SMALL, UNLIMITED)
    completed(hub, "digits", "2")
    with pytest.raises(OperatorError) as raised:
        hub.plan(plan_of("faces", "1"))
    assert raised.value.code == "memory_full"
    assert raised.value.message == (
        "Release 1 does not fit into the memory of 3 devices beside their other models: 3 have "
        "300 MiB for models, of which 200 MiB are taken, and need 150 MiB."
    )


def test_devices_without_room_are_left_out_if_the_plan_says_so() -> None:
    hub = fleet(BIG, SMALL, UNLIMITED, SMALL)
    completed(hub, "digits", "2")
    rollout = hub.start(plan_of("faces", "1", skip=True))
    assert eligible(hub, rollout) == [0, 2]
    assert hub.view(rollout).ineligible == {"memory_full": 2}
    assert isinstance(decision(hub, 0, "faces"), Offer)
    assert isinstance(decision(hub, 1, "faces"), Blocked)
    (wait,) = (one for one in hub.why_device("d1").waits if one.code is WaitCode.INELIGIBLE)
    assert wait.text.removeprefix("faces: ") == (
        "Release 1 may use 150 MiB of memory; this device has 300 MiB for its models, and its other "
        "models may use 200 MiB of these."
    )


def test_a_memory_that_was_not_reported_is_large_enough() -> None:
    hub = fleet(UNLIMITED, UNLIMITED)
    completed(hub, "digits", "2")
    assert eligible(hub, hub.plan(plan_of("faces", "2"))) == [0, 1]


def test_a_release_alone_may_be_too_large() -> None:
    hub = fleet(100, BIG)
    with pytest.raises(
        OperatorError, match="1 have 100 MiB for models, of which 0 MiB are taken, and need 200"
    ):
        hub.plan(plan_of("digits", "2"))


def test_the_older_open_rollout_keeps_the_room() -> None:
    hub = fleet(SMALL)
    older = hub.plan(plan_of("digits", "2"))
    with pytest.raises(OperatorError, match="of which 200 MiB are taken"):
        hub.plan(plan_of("faces", "1"))
    hub.command(older, Verb.START)
    hub.command(older, Verb.HALT)
    with pytest.raises(OperatorError, match="of which 200 MiB are taken"):
        hub.plan(plan_of("faces", "1"))
    assert eligible(hub, older) == [0]


def test_a_release_does_not_count_beside_its_own_model() -> None:
    hub = fleet(SMALL)
    completed(hub, "digits", "1")
    assert eligible(hub, hub.plan(plan_of("digits", "2"))) == [0]


def test_an_open_rollout_keeps_the_room_of_the_way_back() -> None:
    hub = fleet(SMALL)
    completed(hub, "digits", "2")
    hub.start(plan_of("digits", "1"))
    with pytest.raises(OperatorError, match="of which 200 MiB are taken"):
        hub.plan(plan_of("faces", "1"))
    hub.command("ro-2", Verb.ADVANCE)
    assert eligible(hub, hub.plan(plan_of("faces", "1"))) == [0], "100 and 150 of 300"


def test_a_rollback_gives_the_room_to_the_next_plan() -> None:
    hub = fleet(SMALL)
    older = hub.start(plan_of("digits", "2"))
    hub.command(older, Verb.REVERT)
    assert eligible(hub, hub.plan(plan_of("faces", "1"))) == [0]


def test_eligibility_does_not_move_with_reports() -> None:
    hub = fleet(SMALL, SMALL)
    completed(hub, "digits", "1")
    rollout = hub.start(plan_of("faces", "1"))
    version = hub.engine.fleet.facts_version
    for release in ("1", "2", None):
        several(hub, 0, ModelReport(model="digits", release=release))
        assert eligible(hub, rollout) == [0, 1]
    assert hub.engine.fleet.facts_version == version


def test_a_completed_rollout_keeps_no_room_on_newcomers_that_it_does_not_follow() -> None:
    hub = fleet(SMALL)
    completed(hub, "digits", "2")
    hub.add_device("new", models_memory_mib=SMALL)
    assert eligible(hub, hub.plan(plan_of("faces", "1", skip=True))) == [1]


def test_a_changed_memory_changes_who_is_eligible() -> None:
    hub = fleet(SMALL, SMALL)
    completed(hub, "digits", "2")
    with pytest.raises(OperatorError):
        hub.plan(plan_of("faces", "1"))
    hub.engine.fleet.set_facts(
        1, "generic_x86", {}, runtimes=("onnx",), memory_mib=1024, models_memory_mib=350
    )
    assert eligible(hub, hub.plan(plan_of("faces", "1", skip=True))) == [1]


def test_a_device_is_not_offered_what_does_not_fit_beside_what_runs_now() -> None:
    """Digits 2 is being rolled back, but the device still runs it."""
    hub = fleet(SMALL, SMALL)
    older = hub.start(plan_of("digits", "2"))
    for row in (0, 1):
        for kind in (STARTED, CONFIRMED):
            sent = replace(outcome(older, "2", kind, at=hub.now), id=f"{row}-{kind}")
            assert hub.record(row, sent)
        several(hub, row, ModelReport(model="digits", release="2"))
    hub.command(older, Verb.REVERT)
    newer = hub.start(plan_of("faces", "1"))
    found = decision(hub, 0, "faces")
    assert isinstance(found, Blocked)
    assert found.code is WaitCode.MEMORY
    assert found.text == (
        "Release 1 of faces may use 150 MiB; this device has 300 MiB for its models, and digits 2 "
        "may use 200 MiB of these now."
    )
    start = outcome(newer, "1", STARTED, at=hub.now)
    assert not hub.engine.admission.admit(0, start, hub.now)
    (wait,) = (one for one in hub.why(newer).waits if one.code is WaitCode.MEMORY)
    assert wait.devices == 2
    several(hub, 0)
    assert isinstance(decision(hub, 0, "faces"), Offer)
    assert isinstance(decision(hub, 1, "faces"), Blocked)
    assert hub.engine.admission.admit(0, start, hub.now)


def test_a_release_of_the_same_model_is_replaced_not_added() -> None:
    hub = fleet(250)
    several(hub, 0, ModelReport(model="digits", release="1"))
    hub.start(plan_of("digits", "2"))
    assert isinstance(decision(hub, 0, "digits"), Offer)


def test_a_dry_run_says_the_memory_and_where_it_does_not_fit() -> None:
    hub = fleet(BIG, SMALL, SMALL, UNLIMITED)
    completed(hub, "digits", "2")
    wanted = plan_of("faces", "1", skip=True)
    engine = hub.engine
    found = compose(
        engine.fleet, wanted, manifest("1"), engine.without_room(wanted), interval_s=60, now=hub.now
    )
    assert found.ineligible == {"memory_full": 2}
    lines = trial_lines(
        try_plan(wanted, replace(found, memory_mib={"generic_x86": 150}), manifest("1")),
        "faces",
        "1",
    )
    assert any("150 MiB per device; it does not fit on 2 devices" in line for line in lines)


def test_the_devices_that_are_blocked_are_those_that_are_blocked_one_by_one() -> None:
    chance = Random(5)
    hub = fleet(*(chance.choice((UNLIMITED, 200, SMALL, 400, BIG)) for _ in range(60)))
    rollouts = [hub.plan(plan_of(model, "1", skip=True)) for model in ("digits", "faces")]
    for row in range(60):
        present = chance.sample(("digits", "faces"), chance.randrange(3))
        several(hub, row, *(ModelReport(model=one, release=chance.choice("12")) for one in present))
    memory = hub.engine.admission._fleet_wide.memory  # noqa: SLF001 - the constraint itself
    for rollout, model in zip(rollouts, ("digits", "faces"), strict=True):
        each = [row for row in range(60) if memory.blocks(rollout, model, row)]
        assert memory.blocked_rows(rollout, model).tolist() == each
        assert each


# Against a sum over everything, written the other way round.

SITES, PROFILES, MODELS = ("a", "b"), ("x86", "arm"), ("m1", "m2", "m3")


class Brute:
    """Asks each older rollout in turn whether it has a place on the device, without a table."""

    def __init__(self, hub: MemoryHub, limits: dict[tuple[str, str], dict[str, int]]) -> None:
        self.hub = hub
        self.limits = limits
        states = sorted(hub.states(), key=lambda state: (state.created_at, state.id))
        self.rollouts = [hub.engine.rollout(state.id) for state in states]

    def limit(self, place: int, row: int) -> int | None:
        of = self.rollouts[place].state.spec
        return self.limits[of.model, of.release].get(self.hub.engine.fleet.profile(row))

    def selects(self, place: int, row: int) -> bool:
        selector = self.rollouts[place].state.spec.selector
        site = self.hub.engine.fleet.labels(row)["site"]
        return selector in ("", f"site={site}") and self.limit(place, row) is not None

    def fits(self, place: int, row: int) -> bool:
        fleet = self.hub.engine.fleet
        total = fleet.kit(fleet.kit_id(row)).models_memory_mib
        return not total or self.taken(place, row) + (self.limit(place, row) or 0) <= total

    def taken(self, place: int, row: int) -> int:
        if self.hub.engine.fleet.protocol(row) == ONE_MODEL:
            return 0
        mine = self.rollouts[place].model
        return sum(self.room(model, place, row) for model in MODELS if model != mine)

    def room(self, model: str, place: int, row: int) -> int:
        """The room of one model on the device: the newest completed and all open after it."""
        most = 0
        for older in range(place - 1, -1, -1):
            active = self.rollouts[older]
            state = active.state
            if active.model != model or state.status in WITHDRAWN:
                continue
            if not self.selects(older, row) or not self.fits(older, row):
                continue
            if state.rows_at_end is not None and not state.spec.follow and row >= state.rows_at_end:
                continue
            most = max(most, self.limit(older, row) or 0)
            if state.status is Status.COMPLETED:
                break
        return most


def enrol(hub: MemoryHub, chance: Random) -> None:
    row = len(hub.engine.fleet)
    hub.add_device(
        f"d{row}", chance.choice(PROFILES), {"site": chance.choice(SITES)},
        models_memory_mib=chance.choice((0, 150, 200, 300, 400)),
    )  # fmt: skip
    hub.engine.fleet.set_protocol(row, chance.choice((PROTOCOL, PROTOCOL, ONE_MODEL)))


def compare(hub: MemoryHub, limits: dict[tuple[str, str], dict[str, int]]) -> int:
    """Compare each rollout on each device. Returns the number of devices without room."""
    brute, without = Brute(hub, limits), 0
    for place, active in enumerate(brute.rollouts):
        mask = active.scope.eligible_mask()
        full = []
        for row in range(len(hub.engine.fleet)):
            wanted = brute.selects(place, row) and brute.fits(place, row)
            assert bool(mask[row]) == active.scope.eligible(row) == wanted
            need = active.scope.room.need(row)
            if need.total_mib:
                assert need.taken_mib == brute.taken(place, row)
            if brute.selects(place, row) and not brute.fits(place, row):
                full.append(row)
        assert active.scope.without_room().tolist() == full
        assert active.scope.ineligible().get("memory_full", 0) == len(full)
        without += len(full)
    return without


@pytest.mark.parametrize("seed", range(12))
def test_the_memory_that_is_taken_is_the_sum_over_all_older_rollouts(seed: int) -> None:
    chance = Random(seed)
    hub = MemoryHub(now=START)
    limits: dict[tuple[str, str], dict[str, int]] = {}
    for model in MODELS:
        for release in ("1", "2", "3"):
            profiles = chance.sample(PROFILES, chance.choice((1, 2, 2)))
            limits[model, release] = {one: chance.choice((50, 100, 150, 250)) for one in profiles}
            publish(hub, model, release, limits[model, release])
    for _ in range(14):
        enrol(hub, chance)
    without = 0
    for _ in range(25):
        match chance.randrange(6):
            case 0 | 1 | 2:
                wanted = plan_of(
                    chance.choice(MODELS), chance.choice("123"), skip=True,
                    selector=chance.choice(("", "", "site=a", "site=b")),
                )  # fmt: skip
                attempt(hub, replace(wanted, follow=chance.random() < 0.3))
                for verb in (Verb.START, Verb.ADVANCE)[: chance.randrange(3)]:
                    if hub.states():
                        attempt(hub, (hub.states()[-1].id, verb))
            case 3:
                enrol(hub, chance)
            case _ if hub.states():
                verb = chance.choice(
                    (Verb.START, Verb.ADVANCE, Verb.ADVANCE, Verb.HALT, Verb.REVERT)
                )
                attempt(hub, (chance.choice(hub.states()).id, verb))
        hub.now += 1.0
        without += compare(hub, limits)
    assert without
    protocols = [hub.engine.fleet.protocol(row) for row in range(len(hub.engine.fleet))]
    for reverse in (False, True):
        hub.restart(reverse=reverse)
        for row, protocol in enumerate(protocols):
            hub.engine.fleet.set_protocol(row, protocol)
        compare(hub, limits)


def attempt(hub: MemoryHub, what: RolloutSpec | tuple[str, Verb]) -> None:
    """Plan or command, if the engine allows it."""
    try:
        if isinstance(what, RolloutSpec):
            hub.plan(what)
        else:
            hub.command(*what)
    except OperatorError:
        return
