"""The options that name the person who approves, freezes, thaws, unquarantines or labels.

The hub reads the name only with the operator token, which many people may share.
"""

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
        help="Name of the person, with the operator token. The token of a user has its own name.",
    )
    return option(command)
