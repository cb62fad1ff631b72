"""``edgefleet audit``: the audit log."""

from datetime import UTC, datetime

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table


@verb("audit", examples=("edgefleet audit", "edgefleet audit --before 1200 --limit 50 --json"))
@click.option(
    "--before", type=click.IntRange(1), metavar="ID", help="List entries older than this one."
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="Entries per page.")
@pass_invocation
def audit(invocation: Invocation, before: int | None, limit: int) -> None:
    """List the audit log, newest entry first.

    The actor is a user, the holder of the operator token, a gate, or a device. The column "by" has
    the credential and the network address of the actor. Times are UTC.
    """
    with reach(invocation) as hub:
        page = hub.audit(before=before, limit=limit)
    rows = [
        (
            entry.id,
            datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            entry.actor,
            f"{entry.way} {entry.address}".strip(),
            entry.action,
            entry.about,
            entry.detail,
        )
        for entry in page.entries
    ]
    lines = table(("id", "at", "actor", "by", "action", "about", "detail"), rows)
    more = [f"More: --before {page.next}"] if page.next is not None else []
    invocation.screen.answer(page, [*lines, *more])
