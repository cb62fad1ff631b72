"""The operator token: accepted by the hub."""

from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    access = context.access
    if isinstance(access, EdgefleetError):
        if access.code != "unauthenticated":
            return Finding(check="token", state=State.SKIPPED, text="No hub to check it with.")
        return Finding(check="token", state=State.BAD, text=access.message, fix=access.hint)
    if isinstance(context.health, EdgefleetError):
        return Finding(check="token", state=State.SKIPPED, text="The hub does not answer.")
    if context.hub is None:
        return Finding(
            check="token",
            state=State.BAD,
            text=f"The hub does not accept the token {_where(access.token_from)}.",
            fix="Use the operator.token of that hub: --token, EDGEFLEET_TOKEN or --data-dir.",
        )
    return Finding(
        check="token",
        state=State.OK,
        text=f"The hub accepts the token {_where(access.token_from)}.",
    )


def _where(source: str) -> str:
    return "of the options" if source == "given" else f"from {source}"
