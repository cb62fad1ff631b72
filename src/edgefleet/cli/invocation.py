"""One call of the command line: its output format and its hub."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from edgefleet.cli.screen import Screen


@dataclass
class Invocation:
    """Values of the options that every verb has (see ``verb``)."""

    path: str = "edgefleet"
    json: bool = False
    hub: str | None = None
    token: str | None = None
    data_dir: Path | None = None

    @cached_property
    def screen(self) -> Screen:
        return Screen(json=self.json)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
