"""Rollouts of disjoint devices share fleet-wide limits: budgets by label, and bytes."""

from itertools import permutations

from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import BudgetSpec, PaceSpec, RolloutSpec, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.protocol.wire import decode
from edgefleet.rollout.lifecycle.state import RolloutState
from support.toy_rollout import MODEL, ToyShell, manifest, outcome, spec

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
ONE_A_SITE = (BudgetSpec(label="site", max_in_trial=1),)
CAMS, GATES = range(12), range(12, 24)


def two_kinds() -> ToyShell:
    """Twelve cameras and twelve gateways over three sites, and releases 1 and 2."""
    shell = ToyShell(0)
    for row in range(24):
        shell.enrol(f"d{row}", site=f"s{row % 3}", kind="cam" if row in CAMS else "gate")
    for release in "12":
        shell.publish(release)
    return shell


def of(kind: str, release: str, **knobs: object) -> RolloutSpec:
    return replace(spec(release, 100, selector=f"kind={kind}"), **knobs)


def send(shell: ToyShell, row: int, rollout: str, kind: OutcomeKind) -> bool:
    """Record the outcome; a start only if it is admitted."""
    release = shell.engine.view(rollout, shell.now).release
    sent = outcome(rollout, release, kind, at=shell.now)
    sent = replace(sent, id=f"{rollout}/{row}/{kind}")
    if kind is STARTED and not shell.engine.admission.admit(row, sent, shell.now):
        return False
    shell.store(row, sent)
    return True


def begun(shell: ToyShell, rollout: str, rows: range) -> list[int]:
    return [row for row in rows if send(shell, row, rollout, STARTED)]


def test_a_budget_counts_devices_in_trial_of_other_rollouts():
    shell = two_kinds()
    cams, gates = (shell.start(of(kind, "1", budgets=ONE_A_SITE)) for kind in ("cam", "gate"))
    assert begun(shell, cams, CAMS) == [0, 1, 2]
    assert begun(shell, gates, GATES) == []
    codes = {wait.code for wait in shell.engine.why_rollout(gates, shell.now).waits}
    assert WaitCode.BUDGET in codes
    send(shell, 1, cams, CONFIRMED)
    assert begun(shell, gates, GATES) == [13]
    assert begun(shell, cams, CAMS[3:]) == []


def test_a_rollout_without_budgets_counts_for_those_of_others():
    shell = two_kinds()
    cams = shell.start(of("cam", "1"))
    assert begun(shell, cams, CAMS[:2]) == [0, 1]
    gates = shell.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(shell, gates, GATES) == [14]
    assert begun(shell, cams, CAMS[2:]) == list(CAMS[2:]), "no budget limits these devices"
    for row in (0, 3, 6, 9):
        send(shell, row, cams, CONFIRMED)
    assert begun(shell, gates, GATES[:2]) == [12]


def test_a_reserved_place_counts_for_others_and_is_given_back():
    shell = two_kinds()
    cams = shell.start(of("cam", "1"))
    start = outcome(cams, "1", STARTED, at=shell.now)
    assert shell.engine.admission.admit(0, start, shell.now)
    gates = shell.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(shell, gates, GATES) == [13, 14]
    shell.engine.admission.free(0, start)
    assert begun(shell, gates, GATES[:1]) == [12]


def test_a_rollout_of_another_model_counts():
    shell = two_kinds()
    other = replace(manifest("1"), model="faces")
    shell.engine.add_release(other, "f" * 64)
    faces = shell.start(of("cam", "1", model="faces", budgets=ONE_A_SITE))
    gates = shell.start(of("gate", "1", model=MODEL, budgets=ONE_A_SITE))
    assert begun(shell, faces, CAMS) == [0, 1, 2]
    assert begun(shell, gates, GATES) == []


def test_a_rollout_that_ended_counts_no_more():
    shell = two_kinds()
    cams = shell.start(of("cam", "1"))
    gates = shell.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(shell, cams, CAMS[:3]) == [0, 1, 2]
    shell.command(cams, Verb.HALT)
    assert begun(shell, gates, GATES) == [], "the devices of the halted rollout are still in trial"
    shell.command(cams, Verb.REVERT)
    shell.now += 10_000.0  # the devices are dead: the time limit of the revert is over
    change = shell.engine.evaluate(cams, shell.now)
    assert change is not None
    shell.commit(change)
    assert begun(shell, gates, GATES) == [12, 13, 14]


def test_places_are_the_same_in_whatever_order_all_is_loaded():
    shell = two_kinds()
    cams = shell.start(of("cam", "1"))
    gates = shell.start(of("gate", "1", budgets=ONE_A_SITE))
    assert begun(shell, cams, CAMS[:2]) == [0, 1]
    assert begun(shell, gates, GATES) == [14]
    send(shell, 1, cams, CONFIRMED)
    states = [decode(kept, RolloutState) for kept in shell.stored_states.values()]
    stored = list(shell.stored_outcomes.items())
    for order in permutations(states):
        for outcomes in permutations(stored):
            shell.stored_states.clear()
            shell.stored_outcomes.clear()
            shell.restart()
            for state in order:  # each with its own outcomes, in order of arrival
                shell.engine.load(state)
                for (row, _), sent in outcomes:
                    if sent.rollout == state.id:
                        shell.engine.intake.record(row, sent, sent.at)
            start = outcome(gates, "1", STARTED, at=shell.now)
            free = [row for row in GATES if shell.engine.admission.admit(row, start, shell.now)]
            assert free == [13, 14], "row 14 is in trial already, and asks again"


def offered(shell: ToyShell, rows: range) -> list[int]:
    return [row for row in rows if shell.engine.admission.offers(row, shell.now)]


def test_rollouts_with_a_bound_on_bytes_keep_it_together():
    shell = two_kinds()
    for kind in ("cam", "gate"):
        shell.start(of(kind, "1", pace=PaceSpec(bytes_per_s=1)))
    assert len(offered(shell, CAMS)) == 5, "two bytes each, ten seconds' worth"
    assert offered(shell, GATES) == []
    shell.now += 4.0
    assert len(offered(shell, GATES)) == 2
    assert len(offered(shell, CAMS)) == 5, "no more than before"


def test_downloads_of_a_rollout_without_a_limit_count_against_the_limit_of_another():
    shell = two_kinds()
    shell.start(of("cam", "1"))
    gates = shell.start(of("gate", "1", pace=PaceSpec(bytes_per_s=1)))
    assert len(offered(shell, CAMS)) == 12
    assert len(offered(shell, CAMS)) == 12, "a repeated offer costs nothing"
    for row in GATES:
        shell.engine.fleet.observe(
            row, shell.now, model=None, release=None, phase=shell.devices[row].phase
        )
    assert offered(shell, GATES) == []
    waits = {wait.code: wait for wait in shell.engine.why_rollout(gates, shell.now).waits}
    assert "all rollouts" in waits[WaitCode.PACE].text
    shell.now += 24.0
    assert len(offered(shell, GATES)) == 5


def test_bytes_of_each_site_are_kept_together():
    shell = two_kinds()
    shell.start(of("cam", "1"))
    shell.start(of("gate", "1", pace=PaceSpec(bytes_per_s_per_site=1)))
    assert shell.engine.admission.offers(0, shell.now)
    assert shell.engine.admission.offers(3, shell.now)
    assert shell.engine.admission.offers(6, shell.now)
    assert shell.engine.admission.offers(9, shell.now), "eight of ten bytes of site s0"
    assert len(offered(shell, GATES)) == 1 + 4 + 4
