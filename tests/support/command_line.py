"""The command line for tests: in this process, without the user's settings."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from edgefleet.cli.group import root


@dataclass(frozen=True)
class Said:
    """The exit code and the output of a call."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class CommandLine:
    """``edgefleet`` with ``home`` as home folder, and the variables given."""

    home: Path
    environ: Mapping[str, str]

    def __call__(self, *args: str, **variables: str) -> Said:
        base = {"HOME": str(self.home), "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None}
        runner = CliRunner(env={**base, **self.environ, **variables})
        result = runner.invoke(root, list(args))
        return Said(result.exit_code, result.stdout, result.stderr)


def play(script: str, call: CommandLine) -> str:
    """The script with the current output of its commands."""
    played = []
    for line in script.splitlines():
        if not line.startswith("$ edgefleet "):
            continue
        said = call(*shlex.split(line)[2:])
        shown = [text for text in (said.out.rstrip(), said.err.rstrip()) if text]
        ended = [f"(exit {said.exit})"] if said.exit else []
        played.append("\n".join([line, *shown, *ended]))
    return "\n\n".join(played) + "\n"
