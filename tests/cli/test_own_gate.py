"""``serve --gate``: a custom gate from a file or a package."""

import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.cli.custom_gate import GATE_BROKEN, load_gate
from edgefleet.protocol.rollout import (
    EValue,
    Evidence,
    GateSpec,
    Judgement,
    RolloutSpec,
    Status,
    Verdict,
)
from edgefleet.protocol.wire import decode
from edgefleet.rollout.evidence.custom import judge_with
from edgefleet.rollout.evidence.gate import judge
from edgefleet.sim.virtual.result import Result
from edgefleet.testing import play
from support.command_line import CommandLine

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_gate" / "our_gates.py"


def judged(gate, evidence: Evidence) -> Judgement:
    return gate(evidence, GateSpec(), opened_at=0.0, before=None, now=1.0)


def test_a_gate_is_loaded_from_a_file() -> None:
    gate = load_gate(f"{EXAMPLE}:no_second_crash")
    said = judged(gate, Evidence(cut=9, healthy=7, failed=2, reasons={"serving_crashed": 2}))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "crashes")


def test_a_gate_is_loaded_from_a_package() -> None:
    gate = load_gate("edgefleet.rollout.evidence.gate:judge")
    assert judged(gate, Evidence(cut=9)).verdict is Verdict.INCONCLUSIVE


def test_the_verdict_of_a_custom_gate_is_not_in_the_sum_and_says_so() -> None:
    evidence = Evidence(cut=9, healthy=7, failed=2, reasons={"serving_crashed": 2})
    told = judge_with(
        load_gate(f"{EXAMPLE}:no_second_crash"), evidence, GateSpec(),
        opened_at=0.0, before=None, now=1.0,
    )  # fmt: skip
    assert told.text.endswith("its false-alarm rate is not in the sum of the plan.")
    usual = replace(evidence, failed=9, healthy=0, reasons={}, exposed=9)
    told = judge_with(judge, usual, GateSpec(), opened_at=0.0, before=None, now=1.0)
    assert (told.reason, "not in the sum" in told.text) == ("error_rate", False)


@pytest.mark.parametrize(
    ("log_e_value", "reason"),
    [(6.9, "sample"), (6.91, "crashes"), (math.inf, "crashes"), (math.nan, "sample")],
)
def test_an_e_value_fails_a_release_at_its_share_of_alpha(log_e_value: float, reason: str):
    def test(*_, **__) -> EValue:
        return EValue(log_e_value=log_e_value, reason="crashes", text="It crashes.")

    told = judge_with(test, Evidence(cut=9), GateSpec(), opened_at=0.0, before=None, now=1.0)
    assert told.reason == reason
    assert math.log(1 / (0.1 * GateSpec().alpha)) == pytest.approx(6.9078, abs=1e-4)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("our_gates", "not of the form MODULE:NAME"),
        ("gone.py:gate", "cannot be loaded"),
        ("no.such.package:gate", "cannot be loaded"),
        (f"{EXAMPLE}:gone", "has no gone"),
        ("edgefleet.rollout.evidence.gate:PASSED", "is not a function"),
        ("edgefleet.base.ids:mix64", "is not a gate"),
    ],
)
def test_what_is_no_gate_is_refused_before_anything_starts(
    edgefleet: CommandLine, said: str, text: str
) -> None:
    with pytest.raises(OperatorError, match=text):
        load_gate(said)
    ran = edgefleet("serve", "--gate", said)
    assert (ran.exit, text in ran.err) == (2, True)


def test_a_gate_that_raises_decides_nothing_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def gate(evidence, spec, *, opened_at, before, now):\n    return 1 / 0\n")
    gate = load_gate(f"{file}:gate")
    assert judged(gate, Evidence()).reason == GATE_BROKEN
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        play(RolloutSpec(model="digits", release="2"), 50, gate=gate, at_most_s=300)


def test_a_gate_that_gives_no_judgement_decides_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mute.py"
    file.write_text("def gate(evidence, spec, *, opened_at, before, now):\n    return None\n")
    said = judged(load_gate(f"{file}:gate"), Evidence())
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, GATE_BROKEN)


def test_a_gate_that_always_passes_lets_everything_pass(tmp_path: Path) -> None:
    file = tmp_path / "eager.py"
    file.write_text(
        "from edgefleet.protocol.rollout import Judgement, Verdict\n"
        "def gate(evidence, spec, *, opened_at, before, now):\n"
        "    done = evidence.healthy == evidence.cut\n"
        "    return Judgement(verdict=Verdict.PASS if done else Verdict.INCONCLUSIVE,\n"
        "                     reason='all' if done else 'sample', text='', at=now,\n"
        "                     evidence=evidence)\n"
    )
    plan = RolloutSpec(model="digits", release="2")
    assert play(plan, 50, gate=load_gate(f"{file}:gate")).status is Status.COMPLETED


def test_a_gate_of_ones_own_judges_a_simulation(edgefleet: CommandLine) -> None:
    scenario = EXAMPLE.parent / "rare_crash.toml"
    arguments = (
        "sim",
        "run",
        "--scenario",
        str(scenario),
        "--devices",
        "600",
        "--seed",
        "1",
        "--json",
    )
    ran = edgefleet(*arguments, "--gate", f"{EXAMPLE}:no_second_crash")
    assert ran.exit == 0, ran.err
    result = decode(ran.out.encode(), Result)
    assert (result.verdict, result.reason, result.violations) == ("reverted", "crashes", 0)
