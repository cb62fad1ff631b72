"""The durable part of the agent's state as bytes."""

import msgspec

from edgefleet.agent.state import STATE_VERSION, AgentState, Soft
from edgefleet.agent.typed_replace import replace
from edgefleet.base.errors import OperatorError
from edgefleet.protocol.wire import decode, encode


class _Versioned(msgspec.Struct, frozen=True):
    """The one field that every version of the state has. Other fields are ignored."""

    version: int


def to_store(state: AgentState) -> bytes:
    """The durable part as JSON; equal bytes need no write."""
    return encode(replace(state, soft=Soft()))


def from_store(data: bytes) -> AgentState:
    """Read what ``to_store`` made.

    Raises InternalError ``internal`` if the state is damaged. Raises OperatorError
    ``store_foreign`` if another version of the agent wrote it.
    """
    found = decode(data, _Versioned, code="internal").version
    if found != STATE_VERSION:
        raise OperatorError(
            "store_foreign",
            f"state.json has version {found}; this agent reads version {STATE_VERSION}.",
            field="version",
            hint="Run the agent version that wrote it, or move state.json out of the data folder: "
            "the agent then continues from the release in its active slot.",
        )
    return decode(data, AgentState, code="internal")
