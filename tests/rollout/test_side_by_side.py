"""Rollouts of disjoint devices share fleet-wide limits: budgets by label, and bytes."""

from itertools import permutations

from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import BudgetSpec, PaceSpec, RolloutSpec, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.plans import MODEL, manifest, outcome, spec

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
ONE_A_SITE = (BudgetSpec(label="site", max_in_trial=1),)
CAMS, GATES = range(12), range(12, 24)


def two_kinds() -> MemoryHub:
    """Twelve cameras and twelve gateways over three sites, and releases 1 and 2."""
    hub = memory_hub(0, "1", "2")
    for row in range(24):
        kind = "cam" if row in CAMS else "gate"
        hub.add_device(f"d{row}", labels={"site": f"s{row % 3}", "kind": kind})
    return hub


def of(kind: str, release: str, **knobs: object) -> RolloutSpec:
    return replace(spec(release, 100, selector=f"kind={kind}"), **knobs)


def send(hub: MemoryHub, row: int, rollout: str, kind: OutcomeKind) -> bool:
    """Record the outcome; a start only if it is admitted."""
    release = hub.engine.view(rollout, hub.now).release
    sent = outcome(rollout, release, kind, at=hub.now)
    sent = replace(sent, id=f"{rollout}/{row}/{kind}")
    if kind is STARTED and not hub.engine.admission.admit(row, sent, hub.now):
        return False
    hub.record(row, sent)
    return True


def begun(hub: MemoryHub, rollout: str, rows: range) -> list[int]:
    return [row for row in rows if send(hub, row, rollout, STARTED)]


def test_a_budget_counts_devices_in_trial_of_other_rollouts():
    hub = two_kinds()
    cams, gates = (hub.start(of(kind, "1", budgets=ONE_A_SITE)) for kind in ("cam", "gate"))
    assert begun(hub, cams, CAMS) == [0, 1, 2]
    assert begun(hub, gates, GATES) == []
    codes = {wait.code for wait in hub.why(gates).waits}
    assert WaitCode.BUDGET in codes
    send(hub, 1, cams, CONFIRMED)
    assert begun(hub, gates, GATES) == [13]
    assert begun(hub, cams, CAMS[3:]) == []


def test_a_rollout_without_budgets_counts_for_those_of_others():
    hub = two_kinds()
    cams = hub.start(of("cam", "1"))
    assert begun(hub, cams, CAMS[:2]) == [0, 1]
    gates = hub.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(hub, gates, GATES) == [14]
    assert begun(hub, cams, CAMS[2:]) == list(CAMS[2:]), "no budget limits these devices"
    for row in (0, 3, 6, 9):
        send(hub, row, cams, CONFIRMED)
    assert begun(hub, gates, GATES[:2]) == [12]


def test_a_reserved_place_counts_for_others_and_is_given_back():
    hub = two_kinds()
    cams = hub.start(of("cam", "1"))
    start = outcome(cams, "1", STARTED, at=hub.now)
    assert hub.engine.admission.admit(0, start, hub.now)
    gates = hub.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(hub, gates, GATES) == [13, 14]
    hub.engine.admission.free(0, start)
    assert begun(hub, gates, GATES[:1]) == [12]


def test_a_rollout_of_another_model_counts():
    hub = two_kinds()
    other = replace(manifest("1"), model="faces")
    hub.add_release(other, "f" * 64)
    faces = hub.start(of("cam", "1", model="faces", budgets=ONE_A_SITE))
    gates = hub.start(of("gate", "1", model=MODEL, budgets=ONE_A_SITE))
    assert begun(hub, faces, CAMS) == [0, 1, 2]
    assert begun(hub, gates, GATES) == []


def test_a_rollout_that_ended_counts_no_more():
    hub = two_kinds()
    cams = hub.start(of("cam", "1"))
    gates = hub.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(hub, cams, CAMS[:3]) == [0, 1, 2]
    hub.command(cams, Verb.HALT)
    assert begun(hub, gates, GATES) == [], "the devices of the halted rollout are still in trial"
    hub.command(cams, Verb.REVERT)
    hub.now += 10_000.0  # the devices are dead: the time limit of the revert is over
    change = hub.engine.evaluate(cams, hub.now)
    assert change is not None
    hub.commit(change)
    assert begun(hub, gates, GATES) == [12, 13, 14]


def test_places_are_the_same_in_whatever_order_all_is_loaded():
    hub = two_kinds()
    cams = hub.start(of("cam", "1"))
    gates = hub.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(hub, cams, CAMS[:2]) == [0, 1]
    assert begun(hub, gates, GATES) == [14]
    send(hub, 1, cams, CONFIRMED)
    for order in permutations(hub.states()):
        for outcomes in permutations(hub.outcomes):
            again = two_kinds()
            for state in order:  # each with its own outcomes, in order of arrival
                again.engine.load(state)
                for stored in outcomes:
                    if stored.outcome.rollout == state.id:
                        again.engine.intake.record(stored.row, stored.outcome, stored.at)
            start = outcome(gates, "1", STARTED, at=again.now)
            free = [row for row in GATES if again.engine.admission.admit(row, start, again.now)]
            assert free == [13, 14], "row 14 is in trial already, and asks again"


def offered(hub: MemoryHub, rows: range) -> list[int]:
    return [row for row in rows if hub.engine.admission.offers(row, hub.now)]


def test_rollouts_with_a_bound_on_bytes_keep_it_together():
    hub = two_kinds()
    for kind in ("cam", "gate"):
        hub.start(of(kind, "1", pace=PaceSpec(bytes_per_s=1)))
    assert len(offered(hub, CAMS)) == 5, "two bytes each, ten seconds' worth"
    assert offered(hub, GATES) == []
    hub.now += 4.0
    assert len(offered(hub, GATES)) == 2
    assert len(offered(hub, CAMS)) == 5, "no more than before"


def test_downloads_of_a_rollout_without_a_limit_count_against_the_limit_of_another():
    hub = two_kinds()
    hub.start(of("cam", "1"))
    gates = hub.start(of("gate", "1", pace=PaceSpec(bytes_per_s=1)))
    assert len(offered(hub, CAMS)) == 12
    assert len(offered(hub, CAMS)) == 12, "a repeated offer costs nothing"
    for row in GATES:
        hub.engine.fleet.observe(row, hub.now, model=None, release=None, phase=Phase.IDLE)
    assert offered(hub, GATES) == []
    waits = {wait.code: wait for wait in hub.why(gates).waits}
    assert "all rollouts" in waits[WaitCode.PACE].text
    hub.now += 24.0
    assert len(offered(hub, GATES)) == 5


def test_bytes_of_each_site_are_kept_together():
    hub = two_kinds()
    hub.start(of("cam", "1"))
    hub.start(of("gate", "1", pace=PaceSpec(bytes_per_s_per_site=1)))
    assert hub.engine.admission.offers(0, hub.now)
    assert hub.engine.admission.offers(3, hub.now)
    assert hub.engine.admission.offers(6, hub.now)
    assert hub.engine.admission.offers(9, hub.now), "eight of ten bytes of site s0"
    assert len(offered(hub, GATES)) == 1 + 4 + 4
