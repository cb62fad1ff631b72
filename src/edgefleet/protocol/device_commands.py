"""Messages of the operator about single devices: which to list, and what to change."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgefleet.protocol.device import Name
from edgefleet.protocol.wire import Wire

SEARCH_CHARS: Final = 100
STATES: Final = (
    "online", "offline", "quarantined", "failed", "ahead", "copied", "disk_fault",
    "serving_down", "serving_unstable",
)  # fmt: skip
STANDINGS: Final = ("deferred", "trial", "healthy", "refused", "reverted", "failed")
"""Of a device in a rollout, by its reports."""

_Person = Annotated[str, Meta(min_length=1, max_length=63)]
_Note = Annotated[str, Meta(max_length=500)]


class DeviceFilter(Wire, frozen=True, kw_only=True):
    """The devices of a list: those that have each property named. Empty fields select all.

    ``runs`` is ``model`` or ``model:release``, ``phase`` one of ``protocol.device.Phase``.
    ``states`` are of ``STATES``; ``failed`` are devices that failed or refused the release of an
    open rollout, or of the newest rollout of its model. ``search`` is a part of the name, or of a
    label's value, in any case. ``profile``, ``runtime`` and ``agent`` (a version) are facts.
    ``rollout`` selects the devices that reported to it; ``standing``, one of ``STANDINGS``, those
    of them with this standing.
    """

    selector: str = ""
    runs: str = ""
    phase: str = ""
    states: tuple[str, ...] = ()
    search: str = ""
    profile: str = ""
    runtime: str = ""
    agent: str = ""
    rollout: str = ""
    standing: str = ""


class ClearCopy(Wire, frozen=True, kw_only=True):
    """The copies of a device are stopped, so one agent uses its credential."""

    person: _Person = "operator"
    note: _Note = ""


class LabelDevice(Wire, frozen=True, kw_only=True):
    """Sets labels of the operator on a device, which override its own, and removes ``unset``."""

    set: dict[str, str] = msgspec.field(default_factory=dict)
    unset: tuple[str, ...] = ()
    person: _Person = "operator"
    note: _Note = ""


class RenameDevice(Wire, frozen=True, kw_only=True):
    """Gives a device another name. Its credential and its place in rollouts stay."""

    name: Name
    person: _Person = "operator"
    note: _Note = ""


class RemoveDevice(Wire, frozen=True, kw_only=True):
    """Removes a device: its credential is valid no more, and it leaves every count."""

    person: _Person = "operator"
    note: _Note = ""


class RemovedDevice(Wire, frozen=True, kw_only=True):
    """``reports`` has the last report of the device by rollout, for open rollouts with one."""

    name: str
    reports: dict[str, str] = msgspec.field(default_factory=dict)
