"""The result of a check."""

from enum import StrEnum

from edgefleet.protocol.wire import Wire


class State(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"  # works, but needs attention
    BAD = "bad"  # does not work until it is fixed
    SKIPPED = "skipped"  # not checked, because of another finding


class Finding(Wire, frozen=True, kw_only=True):
    """One check's result. ``fix`` is the next step, empty if none is needed."""

    check: str
    state: State
    text: str
    fix: str = ""


def not_asked(check: str) -> Finding:
    """The result of a check of the fleet without a hub."""
    return Finding(check=check, state=State.SKIPPED, text="The hub cannot be asked.")


class Diagnosis(Wire, frozen=True, kw_only=True):
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]
