"""Connects a verb to its hub."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet.base.errors import OperatorError
from edgefleet.cli.invocation import Invocation

if TYPE_CHECKING:
    from edgefleet.client.discover import HubAccess
    from edgefleet.client.hub import HubClient

_CLOSED: Final = frozenset({"completed", "reverted", "refused"})


def data_dir(invocation: Invocation) -> Path:
    from edgefleet.client.places import default_data_dir

    return invocation.data_dir or default_data_dir()


def access(invocation: Invocation) -> "HubAccess":
    """The hub's address and token. Raises the errors of ``discover``."""
    from edgefleet.client.discover import discover

    return discover(url=invocation.hub, token=invocation.token, data_dir=invocation.data_dir)


@contextmanager
def reach(invocation: Invocation) -> "Generator[HubClient]":
    """A client for the hub of the options. Closes it on exit."""
    client = access(invocation).client()
    try:
        yield client
    finally:
        client.close()


def which_rollout(client: "HubClient", given: str | None, *, reading: bool) -> str:
    """The id ``given``, else the only open rollout, else (if ``reading``) the newest one.

    Raises OperatorError ``not_found`` if there is none, ``bad_request`` if several are open.
    """
    if given is not None:
        return given
    every = client.rollouts().rollouts
    still_open = [view for view in every if view.status not in _CLOSED]
    if len(still_open) == 1:
        return still_open[0].id
    if reading and every and not still_open:
        return every[0].id
    if not every or not still_open:
        raise OperatorError(
            "not_found",
            "There is no rollout." if not every else "No rollout is open.",
            field="ROLLOUT",
            hint="Plan one with `edgefleet rollout plan`, or see `edgefleet rollout list`.",
        )
    raise OperatorError(
        "bad_request",
        f"More than one rollout is open: {', '.join(view.id for view in still_open[:5])}.",
        field="ROLLOUT",
        hint="Name one of them as ROLLOUT.",
    )
