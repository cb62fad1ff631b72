"""The options that name the person who approves, freezes, thaws, unquarantines or labels."""

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
    note = click.option("--note", default="", help="Reason, for the audit log.")
    return person_option(note(command))


def person_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--person`` alone."""
    option = click.option(
        "--person",
        metavar="NAME",
        default=_logged_in,
        show_default="the login name",
        help="Name of the person who decides; two people are two different names.",
    )
    return option(command)
