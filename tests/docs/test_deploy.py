"""docs/deploy.md and the files of deploy/: checked as far as this machine can."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgefleet.cli.config_file import check_keys, load
from edgefleet.cli.tree import leaf_at

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
UNIT = ROOT / "deploy" / "edgefleet-hub.service"
IMAGE = ROOT / "deploy" / "Containerfile"
ANALYZE = shutil.which("systemd-analyze")
INSTRUCTIONS = {
    "FROM",
    "RUN",
    "COPY",
    "USER",
    "VOLUME",
    "EXPOSE",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
}
EXPOSURE = 20  # tenths; the page says so


def options_of(verb: tuple[str, ...]) -> set[str]:
    leaf = leaf_at(verb)
    assert leaf is not None, verb
    return {option for param in load(leaf).params for option in param.opts}


def test_every_command_of_the_page_exists_with_its_options() -> None:
    commands = re.findall(
        r"(?:^|[ `/])edgefleet ((?:hub )?[a-z]+)((?: [^`\n]+)?)", PAGE, re.MULTILINE
    )
    assert len(commands) >= 6
    for verb, rest in commands:
        if verb == "hub":
            continue  # "edgefleet hub" in prose
        known = options_of(tuple(verb.split()))
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (verb, rest)


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_configuration_has_known_keys_and_values(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(text)
    values = tomllib.loads(text)
    check_keys(values, path)
    assert values["serve"]["listen"] == "127.0.0.1:8400"


def test_the_unit_starts_the_hub_with_options_that_it_has() -> None:
    (command,) = re.findall(r"^ExecStart=\S+/edgefleet (.*)$", UNIT.read_text(), re.MULTILINE)
    verb, *arguments = command.split()
    assert verb == "serve"
    assert set(arguments[::2]) <= options_of(("serve",))


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing: install systemd")
def test_systemd_accepts_the_unit_and_rates_it_as_closed(tmp_path: Path) -> None:
    text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    text = text.replace("User=edgefleet", "User=daemon").replace("Group=edgefleet", "Group=daemon")
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    verified = subprocess.run(
        [str(ANALYZE), "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = [str(ANALYZE), "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-400:]


def instructions() -> list[tuple[str, str]]:
    text = IMAGE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_containerfile_can_be_read_and_runs_the_hub_as_no_root() -> None:
    found = instructions()
    assert {name for name, _ in found} == INSTRUCTIONS
    last = dict(found)
    assert last["USER"] not in {"root", "0"}
    command = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    assert command[1] == "serve"
    assert set(command[2::2]) <= options_of(("serve",))
    listens = {one.rsplit(":", 1)[1] for one in command if one.startswith("0.0.0.0:")}
    assert listens == set(last["EXPOSE"].split())
    for name, rest in found:
        if name == "COPY" and not rest.startswith("--from"):
            source = rest.split()[0]
            assert source == "dist/" or (ROOT / source).exists(), source  # `make dist` makes it


def test_a_wrong_option_in_the_unit_would_be_found() -> None:
    done = CliRunner().invoke(load(leaf_at(("serve",))), ["--nosuch"])  # type: ignore[arg-type]
    assert done.exit_code == 2
    assert "--nosuch" not in options_of(("serve",))
