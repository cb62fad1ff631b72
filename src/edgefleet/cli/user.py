"""``edgefleet user``: the users of the hub."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts, table

if TYPE_CHECKING:
    from edgefleet.protocol.people import ChangeUser, UserView

ROLES: Final = click.Choice(("viewer", "operator", "approver", "admin"))
_STDIN_HELP: Final = "Read the password from the first line of standard input."


@verb(
    "add",
    examples=(
        "edgefleet user add ada --role approver",
        "edgefleet user add ci --role operator --no-password --json",
    ),
)
@click.argument("user", metavar="NAME")
@click.option("--role", type=ROLES, required=True, help="The permissions of the user.")
@click.option("--no-password", is_flag=True, help="The user has API tokens only, as a program has.")
@click.option("--password-stdin", is_flag=True, help=_STDIN_HELP)
@pass_invocation
def add(
    invocation: Invocation, /, *, user: str, role: str, no_password: bool, password_stdin: bool
) -> None:
    """Add a user.

    A viewer reads. An operator also publishes, enrols devices, plans and steers rollouts. An
    approver also approves rollouts that another user planned. An admin also manages users, tokens
    and trusted keys.

    The password is asked for, and never given on the command line.
    """
    from edgefleet.protocol.people import AddUser, Role

    password = "" if no_password else _password(stdin=password_stdin)
    with reach(invocation) as hub:
        added = hub.people.add_user(AddUser(name=user, role=Role(role), password=password))
    lines = _facts(added)
    if no_password:
        lines.append(f"Next: edgefleet token create {user}")
    invocation.screen.answer(added, lines)


@verb("list", examples=("edgefleet user list", "edgefleet user list --json"))
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the users.

    The holder of the operator token in the hub's data folder is an admin beside them, with the name
    operator.
    """
    with reach(invocation) as hub:
        users = hub.people.users()
    rows = [
        (one.name, one.role.value, _ways(one), "disabled" if one.disabled else "")
        for one in users.users
    ]
    invocation.screen.answer(users, table(("user", "role", "logs in by", "state"), rows))


@verb("role", examples=("edgefleet user role ada admin", "edgefleet user role ada viewer --json"))
@click.argument("user", metavar="NAME")
@click.argument("role", type=ROLES)
@pass_invocation
def role(invocation: Invocation, /, *, user: str, role: str) -> None:
    """Change the role of a user.

    A lower role holds from the next request on, also for tokens and open sessions. A higher role
    holds for tokens that are created, and logins that happen, afterwards.
    """
    from edgefleet.protocol.people import ChangeUser, Role

    _change(invocation, user, ChangeUser(role=Role(role)))


@verb("passwd", examples=("edgefleet user passwd ada", "edgefleet user passwd ada --json"))
@click.argument("user", metavar="NAME")
@click.option("--password-stdin", is_flag=True, help=_STDIN_HELP)
@click.option("--own", is_flag=True, help="Ask for the current password too: NAME is this user.")
@pass_invocation
def passwd(invocation: Invocation, /, *, user: str, password_stdin: bool, own: bool) -> None:
    """Set the password of a user. The sessions of the user end.

    An admin sets the password of any user. Other users set their own with --own.
    """
    from edgefleet.protocol.people import ChangePassword

    current = _ask("Current password") if own else ""
    change = ChangePassword(password=_password(stdin=password_stdin), current=current)
    with reach(invocation) as hub:
        changed = hub.people.set_password(user, change)
    invocation.screen.answer(changed, [f"The password of {user} is set; sessions have ended."])


@verb("disable", examples=("edgefleet user disable ada", "edgefleet user disable ada --json"))
@click.argument("user", metavar="NAME")
@pass_invocation
def disable(invocation: Invocation, /, *, user: str) -> None:
    """Disable a user: from the next request on, tokens and sessions are refused.

    The user stays in the list and in the audit log.
    """
    from edgefleet.protocol.people import ChangeUser

    _change(invocation, user, ChangeUser(disabled=True))


@verb("enable", examples=("edgefleet user enable ada", "edgefleet user enable ada --json"))
@click.argument("user", metavar="NAME")
@pass_invocation
def enable(invocation: Invocation, /, *, user: str) -> None:
    """Enable a disabled user. Tokens that were not revoked are valid again."""
    from edgefleet.protocol.people import ChangeUser

    _change(invocation, user, ChangeUser(disabled=False))


def _change(invocation: Invocation, user: str, change: ChangeUser) -> None:
    with reach(invocation) as hub:
        changed = hub.people.change_user(user, change)
    invocation.screen.answer(changed, _facts(changed))


def _password(*, stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    return _ask("Password", confirm=True)


def _ask(text: str, *, confirm: bool = False) -> str:
    """Ask on the terminal, without an echo."""
    answer: str = click.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _facts(user: UserView) -> list[str]:
    return facts(
        [
            ("user", user.name),
            ("role", user.role.value),
            ("logs in by", _ways(user)),
            ("state", "disabled" if user.disabled else "enabled"),
        ]
    )


def _ways(user: UserView) -> str:
    ways = ["password"] if user.has_password else []
    ways += [f"tokens: {user.tokens}"] if user.tokens else []
    return ", ".join(ways)
