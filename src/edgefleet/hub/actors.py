"""Audit lines with their actor: who acted, how, and from where."""

from msgspec.structs import replace

from edgefleet.protocol.people import OPERATOR
from edgefleet.rollout.lifecycle.step import AuditLine
from edgefleet.security.principals import Principal


def line_by(by: Principal, action: str, about: str, detail: str = "") -> AuditLine:
    return AuditLine(
        actor=by.name, action=action, about=about, detail=detail, way=by.way, address=by.address
    )


def signed(line: AuditLine, by: Principal) -> AuditLine:
    """A line of the engine with its actor. A line of the gate stays the gate's."""
    if line.actor not in (OPERATOR, by.name):
        return line
    return replace(line, actor=by.name, way=by.way, address=by.address)
