"""Who agrees, freezes or releases: a person's name, for the record."""

import getpass
from collections.abc import Callable
from typing import Any

import click


def _logged_in() -> str:
    try:
        return getpass.getuser()[:63]
    except (KeyError, OSError):
        return "operator"


def person_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--person`` and ``--note``."""
    for option in (
        click.option("--note", default="", help="Why, for the audit log."),
        click.option(
            "--person",
            metavar="NAME",
            default=_logged_in,
            show_default="who is logged in",
            help="Who says so; two people are two different names.",
        ),
    ):
        command = option(command)
    return command
