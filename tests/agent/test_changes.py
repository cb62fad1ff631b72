"""A type checker refuses a change of the agent's state with a wrong field or type."""

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from edgefleet.agent.changes import AttemptChanges, SoftChanges, StateChanges
from edgefleet.agent.state import AgentState, Attempt, Soft

ROOT = Path(__file__).parents[2]
PLANTED = """\
from edgefleet.agent.step_context import StepContext

def plant(context: StepContext) -> None:
    context.keep(seq_reserved=1)
    context.forgettable(missed=1, watch=None)
    context.change_attempt(tries=1)
    context.keep(seq_reservd=1)
    context.keep(seq_reserved="1")
    context.forgettable(mised=1)
    context.forgettable(missed=None)
    context.change_attempt(trys=1)
    context.change_attempt(tries="1")
"""
WRONG = range(7, 13)  # the lines of PLANTED that the checker must refuse


@pytest.mark.parametrize(
    ("changes", "struct"),
    [(StateChanges, AgentState), (SoftChanges, Soft), (AttemptChanges, Attempt)],
)
def test_the_changes_are_the_fields_of_the_struct(changes: type, struct: type) -> None:
    assert get_type_hints(changes) == get_type_hints(struct)


def test_a_planted_wrong_change_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(PLANTED)
    config = ROOT / "pyproject.toml"
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache",
         "--follow-imports", "silent", "--no-pretty", planted],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [row for row in result.stdout.splitlines() if ": error: " in row]
    found = {int(row.split("planted.py:")[1].split(":")[0]) for row in errors}
    assert found == set(WRONG), result.stdout + result.stderr
