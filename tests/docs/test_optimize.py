"""docs/optimize.md is followed: its file is saved, and its commands and its Python run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "optimize.md").read_text()
COMMANDS = [one for one in re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL) if "pip" not in one]
TRAIN, API = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_its_commands() -> None:
    assert [one.split()[:3] for one in COMMANDS] == [
        ["python", "train.py"],
        ["edgefleet", "model", "optimize"],
        ["edgefleet", "model", "inspect"],
    ]


@pytest.mark.long
def test_a_reader_follows_the_page(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "api.py").write_text(API)
    environ = {
        **os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    said = {}
    for command in (*COMMANDS, "python api.py"):
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[command.split()[-1] if "inspect" in command else command.split()[1]] = done.stdout
    assert "chosen" in said["model"]
    assert "generic_x86" in said["./digits-2"]
    assert said["api.py"].startswith("generic_x86: onnx ")
