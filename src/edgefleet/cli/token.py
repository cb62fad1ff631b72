"""``edgefleet token``: API tokens of users."""

from __future__ import annotations

import click

from edgefleet.base.texts import utc_text
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.cli.user import ROLES
from edgefleet.cli.values import DURATION


@verb(
    "create",
    examples=(
        "edgefleet token create ada",
        "edgefleet token create ci --role operator --valid 90d --note 'deploy job' --json",
    ),
)
@click.argument("user", metavar="USER")
@click.option("--role", type=ROLES, help="At most this role. Default: the role of the user.")
@click.option(
    "--valid",
    type=DURATION,
    metavar="DURATION",
    help="How long the token is valid. Default: until it is revoked.",
)
@click.option("--note", default="", help="The purpose of the token.")
@pass_invocation
def create(
    invocation: Invocation, /, *, user: str, role: str | None, valid: float | None, note: str
) -> None:
    """Create an API token of a user. The token is shown once: the hub stores its digest alone.

    All tokens of a user are the same person: two approvals need two users.
    """
    from edgefleet.protocol.people import CreateToken, Role

    request = CreateToken(
        user=user, role=None if role is None else Role(role), valid_s=valid, note=note
    )
    with reach(invocation) as hub:
        created = hub.people.create_token(request)
    invocation.screen.answer(created, [created.token])
    if not invocation.json:
        until = created.view.expires_at
        ends = "until it is revoked" if until is None else f"until {utc_text(until)}"
        invocation.screen.note(
            f"Token {created.view.id} of {user} as {created.view.role}, valid {ends}. Store it "
            "now: it is not shown again.\nUse it: EDGEFLEET_TOKEN=... edgefleet fleet show"
        )


@verb("list", examples=("edgefleet token list", "edgefleet token list --json"))
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the tokens without their secrets: those of this user, or for an admin those of all.

    The last use is exact to a minute. Tokens that ended more than 30 days ago are not listed.
    """
    with reach(invocation) as hub:
        tokens = hub.people.tokens()
    rows = [
        (
            one.id,
            one.user,
            one.role.value,
            utc_text(one.created_at),
            "" if one.expires_at is None else utc_text(one.expires_at),
            "" if one.last_used is None else utc_text(one.last_used),
            "revoked" if one.revoked_at is not None else "",
            one.note,
        )
        for one in tokens.tokens
    ]
    head = ("token", "user", "role", "created", "expires", "last used", "state", "note")
    invocation.screen.answer(tokens, table(head, rows))


@verb(
    "revoke",
    examples=("edgefleet token revoke 3f9a0c11d2", "edgefleet token revoke 3f9a0c11d2 --json"),
)
@click.argument("token_id", metavar="ID")
@click.option("--note", default="", help="Reason, for the audit log.")
@pass_invocation
def revoke(invocation: Invocation, /, *, token_id: str, note: str) -> None:
    """Revoke a token: it is refused from the next request on, and its sessions end.

    ID is the part between ef_ and the next underscore, as `edgefleet token list` shows it.
    """
    from edgefleet.protocol.people import RevokeToken

    with reach(invocation) as hub:
        revoked = hub.people.revoke_token(token_id, RevokeToken(note=note))
    invocation.screen.answer(revoked, [f"Token {revoked.id} of {revoked.user} is revoked."])
