"""The example of a custom gate works after it is copied to another folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_gate"


def run_in(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "."],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@pytest.mark.long
def test_the_examples_own_tests_pass_in_another_repository(tmp_path: Path) -> None:
    copy = shutil.copytree(
        EXAMPLE, tmp_path / "own_gate", ignore=shutil.ignore_patterns("__pycache__")
    )
    result = run_in(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.long
def test_a_gate_that_lost_its_rule_fails_them(tmp_path: Path) -> None:
    copy = shutil.copytree(
        EXAMPLE, tmp_path / "own_gate", ignore=shutil.ignore_patterns("__pycache__")
    )
    gate = copy / "our_gates.py"
    gate.write_text(gate.read_text().replace("crashes >= 2", "crashes >= 200"))
    result = run_in(copy)
    assert "test_our_gate_takes_it_back_at_the_second_crash" in result.stdout
    assert result.returncode == 1
