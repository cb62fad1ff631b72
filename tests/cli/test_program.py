"""The program, started by a shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet import __version__
from support.canned_hub import TOKEN, CannedHub

HEAVY = ("rich", "numpy", "onnx", "onnxruntime", "starlette", "uvicorn", "edgefleet.hub")


def run(home: Path, *args: str, code: str | None = None) -> "subprocess.CompletedProcess[str]":
    """``python -m edgefleet.cli.main ARGS``, or ``code`` with those arguments."""
    start = ["-c", code] if code else ["-m", "edgefleet.cli.main"]
    return subprocess.run(
        [sys.executable, *start, *args],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_and_its_exit_code(tmp_path: Path) -> None:
    said = run(tmp_path, "--help")
    assert (said.returncode, said.stderr) == (0, "")
    assert "First steps" in said.stdout


def test_an_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    assert run(tmp_path, "rolout").returncode == 2
    said = run(tmp_path, "rollout", "list", "--json")
    assert said.returncode == 5
    assert json.loads(said.stdout.splitlines()[-1])["code"] == "unreachable"


def test_a_wrong_setting_of_an_agent_ends_it_with_the_code_for_bad_input(tmp_path: Path) -> None:
    said = run(tmp_path, "agent", "run", "--data-dir", str(tmp_path / "device"))
    assert said.returncode == 2
    assert "--hub" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_reader_that_goes_away_is_no_defect(tmp_path: Path, canned: CannedHub) -> None:
    hub = f"--hub={canned.url}"
    program = [sys.executable, "-m", "edgefleet.cli.main", "device", "list", hub, "--token", TOKEN]
    with subprocess.Popen(
        program,
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(60) == 1
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    "args", [("--help",), ("rollout", "--help"), ("rollout", "list", "--help")]
)
def test_help_loads_no_more_than_it_shows(args: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n"
        "from edgefleet.cli.main import main\n"
        "main()\n"
    )
    said = run(tmp_path, *args, code=code)
    assert said.returncode == 0
    loaded = set(said.stdout.splitlines()[-1].split()[1:])
    assert "edgefleet.cli.group" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_shell_can_complete_verbs(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "edgefleet.cli.main"],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "_EDGEFLEET_COMPLETE": "bash_complete",
            "COMP_WORDS": "edgefleet rollout re",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stdout.splitlines() == ["plain,resume", "plain,revert"]


def test_the_agent_starts_without_what_only_operators_have(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['click', 'rich', 'numpy', 'starlette']))\n"
        "from edgefleet.cli.main import main\n"
        "main()\n"
    )
    said = run(tmp_path, "agent", "run", "--help", code=code)
    assert (said.returncode, said.stderr) == (0, "")
    assert "--trust" in said.stdout


def test_a_base_install_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys\nsys.modules['click'] = None\nfrom edgefleet.cli.main import main\nmain()\n"
    said = run(tmp_path, "rollout", "list", code=code)
    assert said.returncode == 1
    assert "pip install 'edgefleet[all]'" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_base_install_has_the_version_and_the_verbs_of_the_agent(tmp_path: Path) -> None:
    code = "import sys\nsys.modules['click'] = None\nfrom edgefleet.cli.main import main\nmain()\n"
    said = run(tmp_path, "--version", code=code)
    assert (said.returncode, said.stdout, said.stderr) == (0, f"edgefleet {__version__}\n", "")
    said = run(tmp_path, "agent", "health", "--data-dir", str(tmp_path), code=code)
    assert (said.returncode, said.stderr) == (1, "")
    assert said.stdout == (
        f"No agent answers for {tmp_path.resolve()}. No serving process answers.\n"
    )


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['uvicorn'] = None\nfrom edgefleet.cli.main import main\nmain()\n"
    )
    said = run(tmp_path, "serve", "--json", code=code)
    assert said.returncode == 1
    assert json.loads(said.stdout)["code"] == "runtime_missing"
    assert "uvicorn" in said.stdout
