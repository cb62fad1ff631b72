"""Scenarios: a fleet, a plan, the new release's true behaviour, faults and operator actions.

A scenario is a TOML file with these tables. Omitted fields have the defaults here. A share is a
fraction of devices (or of messages, where noted) between 0 and 1. A rollout has a bake only if the
scenario names ``bake_s``; the run then lasts until the bake has ended.
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
Span = tuple[Seconds, Seconds]  # drawn uniformly between the two, in seconds
MODELS: Final = ("digits", "detector", "faces", "sounds")
MODEL: Final = MODELS[0]
OLD, NEW = "1", "2"
ROLLOUT: Final = "ro-1"  # the rollout of the new release of ``MODEL``


class Truth(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The true behaviour of the new release, which the gate has to find out.

    ``previous`` is that of the old release, of which only the figures of served requests and of the
    golden set count: confidence, accuracy, latency, errors, refusals, requests, drift and costs.
    """

    fails: Share = 0.0  # requests fail during the trial
    crashes: Share = 0.0  # the serving process ends during the trial
    refuses: Share = 0.0  # the golden set fails on the device
    bricks: Share = 0.0  # the device is dead after the activation
    burns: Share = 0.0  # confirms its trial, fails requests ``burns_after_s`` later
    burns_after_s: Seconds = 600.0
    hangs: Share = 0.0  # passes its golden set; no request ends from the activation on
    mute: Share = 0.0  # passes its golden set, and refuses each request
    # Confirms its trial. From ``ends_from_s`` after the start of the run on, its serving process
    # ends by itself ``ends_every_s`` after each start.
    ends: Share = 0.0
    ends_from_s: Seconds = 0.0
    ends_every_s: Seconds = 300.0
    # LABEL=VALUE or profile=NAME. The shares above are of these devices, and spare all others. Only
    # for the release of ``MODEL``.
    only_on: str = ""
    late_fails: Share = 0.0  # like ``fails``, if the device starts after ``late_from_s``
    late_from_s: Seconds = 0.0  # after the start of the run
    disagrees: Share = 0.0  # share of requests whose answer is not that of the old release
    confidence: Share = 0.9  # mean top score; the old release has 0.9 by default
    accuracy: Share = 0.97  # on the golden set; the old release has 0.97 by default
    latency: Annotated[float, Meta(gt=0.0, le=1000.0)] = 1.0  # p95, relative to 0.9 ms
    errors: Share = 0.0  # share of requests that fail all the time
    refused: Share = 0.0  # share of requests that are refused before the release runs
    requests: Annotated[float, Meta(ge=0.0, le=1000.0)] = 1.0  # relative to the fleet's rate
    wears: Share = 0.0  # share of requests that fail ``wears_after_s`` after the activation
    wears_after_s: Seconds = 21_600.0
    labelled_accuracy: Share = 0.95  # share of the labelled answers that are correct
    drift: Share = 0.0  # share of answers in a class that the old release never gives
    cpu: Annotated[float, Meta(gt=0.0, le=1000.0)] = 1.0  # time per request, relative to 0.5 ms
    leaks_mib_h: Annotated[float, Meta(ge=0.0)] = 0.0  # growth of the memory of its process
    heats: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0  # degrees Celsius above an idle board
    size_bytes: Annotated[int, Meta(gt=0)] = 2_000_000
    previous: "Truth | None" = None  # None: a release with the defaults


OLD_TRUTH: Final = Truth()


class Faults(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fault injection around the rollout, until ``heal_s``."""

    offline: Share = 0.0  # devices that are offline at first
    offline_s: Span = (600.0, 5400.0)
    dark_sites: Annotated[int, Meta(ge=0)] = 0  # sites of which no device has a link for a time
    dark_from_s: Span = (60.0, 1800.0)
    dark_s: Span = (600.0, 3600.0)
    flapping: Share = 0.0  # devices with a link that goes up and down
    flapping_up_s: Span = (60.0, 300.0)
    flapping_down_s: Span = (20.0, 120.0)
    loss: Share = 0.0  # messages lost, in each direction
    doubling: Share = 0.0  # check-ins that arrive twice
    reordering: Share = 0.0  # check-ins that arrive after later ones
    thin: Share = 0.0  # devices on a slow link
    thin_bytes_s: Annotated[float, Meta(gt=0.0)] = 20_000.0
    disk_full: Share = 0.0
    disk_full_s: Span = (300.0, 2400.0)
    power_cuts: Share = 0.0  # steps of an active device that a power cut interrupts
    lost_writes: Share = 0.0  # power cuts that lose the bytes of the idle slot
    wrong_clocks: Share = 0.0
    wrong_by_s: Seconds = 86_400.0
    old_agents: Share = 0.0  # devices with a protocol that the hub does not support
    hub_crashes: Annotated[int, Meta(ge=0, le=64)] = 0
    hub_restores: Annotated[int, Meta(ge=0, le=8)] = 0  # crashes with the last reports lost, too
    hub_down_s: Span = (5.0, 60.0)
    outage_s: Seconds = 0.0  # how long the requests of all releases fail
    outage_at_s: Seconds = 0.0
    no_traffic_s: Seconds = 0.0  # how long no device gets requests
    no_traffic_at_s: Seconds = 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the faults that differ from their defaults."""
        mine = msgspec.structs.asdict(self)
        none = msgspec.structs.asdict(Faults())
        return tuple(name for name in COUNTED if mine[name] != none[name])


COUNTED: Final = (
    "offline", "dark_sites", "flapping", "loss", "doubling", "reordering", "thin", "disk_full",
    "power_cuts", "lost_writes", "wrong_clocks", "old_agents", "hub_crashes", "hub_restores",
)  # fmt: skip


class Group(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices with equal profile and labels."""

    profile: str
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    devices: Annotated[int, Meta(ge=1)]


class Population(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet. ``newcomers`` (a share) enrol during the rollout, in addition to the devices.

    ``models`` is the number of models. With several, each device runs some of them at the start,
    and has a label for each: ``detector=yes``. The others reach it only by a rollout.
    """

    interval_s: Annotated[float, Meta(ge=1.0)] = 60.0
    sites: Annotated[int, Meta(ge=1)] = 24
    uneven: bool = False  # faults of the release fall on whole sites, one after another
    profiles: tuple[str, ...] = ("generic_x86", "jetson_nano", "raspberry_pi")
    newcomers: Share = 0.0
    models: Annotated[int, Meta(ge=1, le=len(MODELS))] = 1
    model_share: Share = 0.6  # devices that run a model at the start, for each of several
    one_model_agents: Share = 0.0  # devices with an agent of protocol 2
    timezones: tuple[str, ...] = ()  # values of the devices' label ``timezone``, in turn
    bytes_s: Annotated[float, Meta(gt=0.0)] = 1_000_000.0
    requests_s: Annotated[float, Meta(ge=0.0)] = 1.0  # inference requests per second and device
    labelled: Share = 0.0  # share of the panel's answers that get a label later
    labels_late_s: Seconds = 0.0  # from the answer to its label
    groups: tuple[Group, ...] = ()  # replaces profiles, sites and time zones
    apart: bool = False  # step equal devices one by one
    panel: Annotated[int, Meta(ge=0, le=10_000)] = 200  # devices that send telemetry all the time


class Deed(StrEnum):
    """Operator actions: the verbs of a rollout, and freezing the fleet."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    HALT = "halt"
    REVERT = "revert"
    FREEZE = "freeze"
    THAW = "thaw"


class Act(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator action, ``at_s`` after the start or, if the hub is down, once it is up again.

    It is an action on the rollout of ``model``. The hub refuses a verb that the rollout's status
    does not allow.
    """

    at_s: Seconds
    verb: Deed
    model: str = MODEL


class SideRollout(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout of another model beside the first. It is planned and started at ``at_s``."""

    rollout: RolloutSpec
    release: Truth = Truth()
    at_s: Seconds = 0.0


class Scenario(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulation. Faults end ``heal_s`` after the start. Then the rollout must end."""

    title: str
    expect: tuple[str, ...] = ()  # the final statuses allowed for a large enough fleet
    fleet: Population = Population()
    release: Truth = Truth()
    faults: Faults = Faults()
    rollout: RolloutSpec = RolloutSpec(model=MODEL, release=NEW, bake_s=0)
    beside: tuple[SideRollout, ...] = ()
    operator: tuple[Act, ...] = ()
    tick_s: Annotated[float, Meta(ge=1.0)] = 5.0
    heal_s: Seconds = 7200.0
    end_s: Seconds = 86_400.0  # longest time after healing
    person_s: Seconds = 3600.0  # after healing; then a person decides an undecided rollout

    def __post_init__(self) -> None:
        models = [MODEL, *(side.rollout.model for side in self.beside)]
        allowed = MODELS[: self.fleet.models]
        if any(side.release.only_on for side in self.beside):
            msg = f"only the release of {MODEL} may have only_on"
            raise ValueError(msg)
        if not set(models) <= set(allowed) or len(set(models)) < len(models):
            msg = f"each rollout needs a model of its own out of {', '.join(allowed)}"
            raise ValueError(msg)

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the fleet."""
        return MODELS[: self.fleet.models]

    @property
    def truths(self) -> dict[str, Truth]:
        """The true behaviour of the new release by model, for models with a rollout."""
        return {MODEL: self.release} | {side.rollout.model: side.release for side in self.beside}

    @property
    def rollouts(self) -> dict[str, str]:
        """The rollouts of new releases: their ids by model."""
        sides = (side.rollout.model for side in self.beside)
        return {MODEL: ROLLOUT} | {model: f"ro-{place}" for place, model in enumerate(sides, 2)}


def load(name: str) -> Scenario:
    """Load a packaged scenario by name, or a ``.toml`` file by path.

    Raises OperatorError ``setting_invalid``.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise OperatorError(
                "setting_invalid", f"The file {name} does not exist.", field="scenario"
            )
        return read(path.read_bytes(), name)
    if name not in names():
        known = ", ".join(names())
        raise OperatorError(
            "setting_invalid",
            f"There is no scenario {name!r}. The scenarios are {known}.",
            field="scenario",
        )
    return read((_folder() / f"{name}.toml").read_bytes(), name)


def read(data: bytes, name: str) -> Scenario:
    """Read a scenario's TOML. Raises OperatorError ``setting_invalid``."""
    try:
        tables = msgspec.toml.decode(data)
        for table in (tables, *tables.get("beside", ())):
            if "rollout" in table:
                table["rollout"] = {"bake_s": 0} | table["rollout"]
        return msgspec.convert(tables, Scenario)
    except (msgspec.MsgspecError, ValueError) as error:
        raise OperatorError("setting_invalid", f"{name}: {error}.", field="scenario") from error


def names() -> tuple[str, ...]:
    """Names of the packaged scenarios, sorted."""
    found = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in found))


def _folder() -> Traversable:
    return resources.files("edgefleet.sim.virtual") / "scenarios"
