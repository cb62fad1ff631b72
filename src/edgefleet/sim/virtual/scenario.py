"""What a simulation plays: a fleet, a plan, a release and its truth, faults, an operator's hand.

A scenario is a TOML file of these tables; what it leaves out is as it stands here. Shares are of
devices, or of messages where a message is meant, between 0 and 1.
"""

from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.wire import Wire

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
Span = tuple[Seconds, Seconds]  # drawn evenly between the two
MODEL: Final = "digits"
OLD, NEW = "1", "2"
ROLLOUT: Final = "ro-1"  # the one that brings the new release


class Truth(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the new release does to devices, whatever anybody believes."""

    fails: Share = 0.0  # errors in its trial
    crashes: Share = 0.0  # its process ends in its trial
    refuses: Share = 0.0  # its golden set is not met
    bricks: Share = 0.0  # the device is never heard again once it activated it
    burns: Share = 0.0  # works in its trial, fails requests ``burns_after_s`` later
    burns_after_s: Seconds = 600.0
    confidence: Share = 0.9  # mean top score; the old release has 0.9
    accuracy: Share = 0.97  # on the golden set; the old release has 0.97
    latency: Annotated[float, Meta(gt=0.0, le=1000.0)] = 1.0  # p95, times that of the old release
    requests: Annotated[float, Meta(ge=0.0, le=1000.0)] = 1.0  # times those of the old release
    drift: Share = 0.0  # of answers in a class of which there was none before
    size_bytes: Annotated[int, Meta(gt=0)] = 2_000_000


OLD_TRUTH: Final = Truth()


class Faults(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong around the rollout, until everything is healed."""

    offline: Share = 0.0  # devices that are away at first
    offline_s: Span = (600.0, 5400.0)
    flapping: Share = 0.0  # devices whose link comes and goes
    flapping_up_s: Span = (60.0, 300.0)
    flapping_down_s: Span = (20.0, 120.0)
    loss: Share = 0.0  # messages lost, each way
    doubling: Share = 0.0  # check-ins that arrive twice
    reordering: Share = 0.0  # check-ins that are overtaken
    thin: Share = 0.0  # devices on a thin link
    thin_bytes_s: Annotated[float, Meta(gt=0.0)] = 20_000.0
    disk_full: Share = 0.0
    disk_full_s: Span = (300.0, 2400.0)
    power_cuts: Share = 0.0  # steps of a busy device that the power interrupts
    lost_writes: Share = 0.0  # power cuts that take the idle slot's bytes with them
    wrong_clocks: Share = 0.0
    wrong_by_s: Seconds = 86_400.0
    old_agents: Share = 0.0  # devices that speak a protocol the hub no longer does
    previous_agents: Share = 0.0  # devices of protocol 1, which start by themselves
    hub_crashes: Annotated[int, Meta(ge=0, le=64)] = 0
    hub_down_s: Span = (5.0, 60.0)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the faults that are in it."""
        said = msgspec.structs.asdict(self)
        none = msgspec.structs.asdict(Faults())
        return tuple(name for name in COUNTED if said[name] != none[name])


COUNTED: Final = (
    "offline", "flapping", "loss", "doubling", "reordering", "thin", "disk_full", "power_cuts",
    "lost_writes", "wrong_clocks", "old_agents", "previous_agents", "hub_crashes",
)  # fmt: skip


class Group(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices that are alike."""

    profile: str
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    devices: Annotated[int, Meta(ge=1)]


class Population(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet. ``newcomers`` enrol while the rollout runs, beside those asked for."""

    interval_s: Annotated[float, Meta(ge=1.0)] = 60.0
    sites: Annotated[int, Meta(ge=1)] = 24
    profiles: tuple[str, ...] = ("generic_x86", "jetson_nano", "raspberry_pi")
    newcomers: Share = 0.0
    timezones: tuple[str, ...] = ()  # given to devices as their label ``timezone``, in turn
    bytes_s: Annotated[float, Meta(gt=0.0)] = 1_000_000.0
    requests_s: Annotated[float, Meta(ge=0.0)] = 1.0  # what people ask of a device
    groups: tuple[Group, ...] = ()  # instead of profiles, sites and zones dealt out in turn
    apart: bool = False  # devices that are alike are stepped one by one all the same
    panel: Annotated[int, Meta(ge=0, le=10_000)] = 200  # devices that send figures all the time


class Deed(StrEnum):
    """What an operator can do: the verbs of a rollout, and freezing the whole fleet."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    HALT = "halt"
    REVERT = "revert"
    FREEZE = "freeze"
    THAW = "thaw"


class Act(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's deed, ``at_s`` after the start, or as soon after it as the hub is up.

    One that is not allowed then is refused.
    """

    at_s: Seconds
    verb: Deed


class Scenario(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulation. Everything is healed ``heal_s`` after the start; it then has to end."""

    title: str
    expect: tuple[str, ...] = ()  # statuses in which a fleet that is large enough ends
    fleet: Population = Population()
    release: Truth = Truth()
    faults: Faults = Faults()
    rollout: RolloutSpec = RolloutSpec(model=MODEL, release=NEW)
    operator: tuple[Act, ...] = ()
    tick_s: Annotated[float, Meta(ge=1.0)] = 5.0
    heal_s: Seconds = 7200.0
    end_s: Seconds = 86_400.0  # after healing
    person_s: Seconds = 3600.0  # after which a person decides what no gate will


def load(name: str) -> Scenario:
    """The scenario of that name, or of that file.

    Raises OperatorError ``not_found`` or ``setting_invalid``.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise OperatorError("not_found", f"There is no file {name}.", field="scenario")
        return read(path.read_bytes(), name)
    if name not in names():
        known = ", ".join(names())
        raise OperatorError(
            "not_found", f"There is no scenario {name!r}. There are: {known}.", field="scenario"
        )
    return read((_folder() / f"{name}.toml").read_bytes(), name)


def read(data: bytes, name: str) -> Scenario:
    """Read a scenario's TOML. Raises OperatorError ``setting_invalid``."""
    try:
        return msgspec.toml.decode(data, type=Scenario)
    except (msgspec.MsgspecError, ValueError) as error:
        raise OperatorError("setting_invalid", f"{name}: {error}.", field="scenario") from error


def names() -> tuple[str, ...]:
    """Scenarios that come with edgefleet."""
    found = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in found))


def _folder() -> Traversable:
    return resources.files("edgefleet.sim.virtual") / "scenarios"
