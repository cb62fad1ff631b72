"""What a check says."""

from enum import StrEnum

from edgefleet.protocol.wire import Wire


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    LOOK = "look"  # works, but is worth a look
    BAD = "bad"  # something will not work until it is mended
    SKIPPED = "skipped"  # cannot be told, because of another finding


class Finding(Wire, frozen=True, kw_only=True):
    """One check's result; ``fix`` is what to do, empty when nothing is."""

    check: str
    state: State
    text: str
    fix: str = ""


class Diagnosis(Wire, frozen=True, kw_only=True):
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]
