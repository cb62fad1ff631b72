"""The fault of a device's disk (``Facts.disk_fault``) in words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.why import Wait, WaitCode

_SERVES: Final = "It serves its releases, and takes no new one until"

_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "disk_full": f"The disk of this device is full. {_SERVES} there is space.",
        "disk_readonly": f"The disk of this device is read-only, as a worn SD card is. {_SERVES} "
        "the card is replaced, or the disk is mounted for writing.",
        "disk_failed": f"Writes to the disk of this device fail. {_SERVES} they succeed: check the "
        "disk and the owner of the data folder.",
        "state_foreign": f"The state of this device is that of a newer agent. {_SERVES} that agent "
        "is installed again.",
    }
)


def known_code(code: str) -> str:
    """The code, or "other" for one of a newer agent."""
    return code if code in _TEXTS else "other"


def disk_faults_text(faults: Mapping[str, int]) -> str:
    """``disk_full 1, disk_readonly 2``, from the number of devices by code."""
    return ", ".join(f"{code} {count}" for code, count in faults.items())


def disk_fault_text(code: str) -> str:
    """The fault in words. Empty for an empty code."""
    return _TEXTS.get(code, f"This device cannot write its disk ({code}).") if code else ""


def disk_wait(code: str) -> Wait:
    """The wait of a device whose disk has this fault."""
    return Wait(code=WaitCode.DISK_FAULT, text=disk_fault_text(code))
