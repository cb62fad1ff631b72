"""The operator token, as the hub sees it."""

from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State


def check(ground: Ground) -> Finding:
    access = ground.access
    if isinstance(access, EdgefleetError):
        if access.code != "not_authorized":
            return Finding(check="token", state=State.SKIPPED, text="No hub to show it to.")
        return Finding(check="token", state=State.BAD, text=access.message, fix=access.hint)
    if isinstance(ground.health, EdgefleetError):
        return Finding(check="token", state=State.SKIPPED, text="The hub does not answer.")
    if ground.hub is None:
        return Finding(
            check="token",
            state=State.BAD,
            text=f"The hub does not accept the token that was {_where(access.token_from)}.",
            fix="Give that hub's operator.token: --token, EDGEFLEET_TOKEN or --data-dir.",
        )
    return Finding(check="token", state=State.OK, text=f"Accepted; {_where(access.token_from)}.")


def _where(source: str) -> str:
    return "given" if source == "given" else f"read from {source}"
