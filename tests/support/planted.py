"""Lines that a type checker must refuse, in a module that it is shown."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def refused_lines(source: str, folder: Path) -> tuple[set[int], str]:
    """The lines of ``source`` in which mypy finds an error, and all that mypy printed."""
    planted = folder / "planted.py"
    planted.write_text(source)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir",
         folder / "cache", "--follow-imports", "silent", "--no-pretty", planted],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [row for row in result.stdout.splitlines() if ": error: " in row]
    found = {int(row.split("planted.py:")[1].split(":")[0]) for row in errors}
    return found, result.stdout + result.stderr


def wrong_lines(source: str) -> set[int]:
    """The lines of ``source`` that end with ``# wrong``."""
    lines = enumerate(source.splitlines(), 1)
    return {number for number, line in lines if line.endswith("# wrong")}
