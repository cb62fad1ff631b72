"""Our gate against the real engine, in virtual time. Run it with pytest in this folder."""

from pathlib import Path

from our_gates import few_crashes, no_second_crash

from edgefleet.protocol.rollout import RolloutSpec, Status, WaveSpec
from edgefleet.testing import Behaviour, FakeDevice, Fate, play, simulate

PLAN = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=10), WaveSpec(percent=100)))
RARE_CRASH = Behaviour(crashes=0.02)  # far below the 5 % that the usual gate allows


def test_a_rare_crash_passes_the_usual_gate() -> None:
    assert play(PLAN, 500, behaviour=RARE_CRASH).status is Status.COMPLETED


def test_our_gate_takes_it_back_at_the_second_crash() -> None:
    played = play(PLAN, 500, behaviour=RARE_CRASH, gate=no_second_crash)
    assert (played.status, played.reason) == (Status.REVERTED, "crashes")
    assert played.view.evidence.reasons == {"serving_crashed": 2}
    assert played.on_release == {"0": 500}


def test_one_crash_is_let_pass() -> None:
    devices = [FakeDevice(f"device-{number}") for number in range(100)]
    devices[17].fates = {"2": Fate.CRASHES}
    assert play(PLAN, devices, gate=no_second_crash).status is Status.COMPLETED


def test_our_test_counts_beside_those_of_the_usual_gate() -> None:
    crashing = play(PLAN, 1000, behaviour=Behaviour(crashes=0.04), gate=few_crashes)
    assert (crashing.status, crashing.reason) == (Status.REVERTED, "crashes")
    failing = play(PLAN, 1000, behaviour=Behaviour(fails=0.3), gate=few_crashes)
    assert (failing.status, failing.reason) == (Status.REVERTED, "error_rate")
    healthy = play(PLAN, 1000, gate=few_crashes)
    assert healthy.status is Status.COMPLETED


HERE = Path(__file__).parent


def test_our_own_scenario_ends_well() -> None:
    """The simulator: real agents, real engine, faults, every invariant checked."""
    run = simulate(HERE / "two_sites.toml", devices=300, seed=1, gate=no_second_crash)
    assert (run.violations, run.finished, run.verdict) == (0, True, "completed")


def test_our_gate_holds_when_everything_goes_wrong() -> None:
    crashing = simulate(HERE / "rare_crash.toml", devices=600, seed=1, gate=no_second_crash)
    assert (crashing.violations, crashing.verdict, crashing.reason) == (0, "reverted", "crashes")
    usual = simulate(HERE / "rare_crash.toml", devices=600, seed=1)
    assert (usual.violations, usual.verdict) == (0, "completed")
