"""``edgefleet whoami``: the principal of the token."""

from __future__ import annotations

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts


@verb("whoami", examples=("edgefleet whoami", "edgefleet whoami --json"))
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Show who the hub takes you for: name, role, permissions and credential."""
    with reach(invocation) as hub:
        found = hub.people.whoami()
    rows = [
        ("name", found.name),
        ("role", found.role.value),
        ("may", ", ".join(found.permissions)),
        ("credential", found.way),
        ("address", found.address),
    ]
    invocation.screen.answer(found, facts(rows))
