"""The stable codes of failures in words. Gate, command line and page use the same words."""

from typing import Final

from edgefleet.protocol.device import Reason
from edgefleet.protocol.shadow import PASSED, SHORT

_TEXTS: Final[dict[str, str]] = {
    Reason.SIGNATURE: "signature not valid",
    Reason.UNREADABLE: "manifest of a version that the agent cannot read",
    Reason.DIGEST: "wrong digest",
    Reason.NO_VARIANT: "no variant for the profile",
    Reason.TOO_LARGE: "release does not fit the device",
    Reason.GOLDEN: "golden set failed",
    Reason.LOAD: "model did not load",
    Reason.CRASH: "serving crashed",
    Reason.ERRORS: "inference errors",
    Reason.REFUSALS: "requests refused",
    Reason.CONFIDENCE: "confidence dropped",
    Reason.ANSWERS: "answers differ from those of the active release",
    Reason.HUNG: "inference hung",
    Reason.SILENT: "no answer to any request",
    Reason.CPU: "CPU time increased",
    Reason.MEMORY_GROWTH: "memory grew",
    Reason.INTERRUPTED: "trial interrupted too often",
    Reason.DISK_FULL: "disk full",
    "disk_readonly": "disk is read-only",
    "disk_failed": "disk fails",
    "state_foreign": "state of a newer agent",
    Reason.TRANSFER: "damaged download",
    Reason.NEIGHBOUR: "another model harmed",
    Reason.SERVING: "serving failed after the confirmation",
    Reason.RECALLED: "reverted on the order of the hub",
    "silent": "silence after activating",
    PASSED: "shadow phase passed",
    SHORT: "shadow phase without enough requests",
}


def reason_text(code: str) -> str:
    """The words for a code. A code that is not known keeps its words, with spaces."""
    return _TEXTS.get(code) or code.replace("_", " ") or "no reason given"
