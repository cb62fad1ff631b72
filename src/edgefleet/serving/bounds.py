"""The bounds of the serving process that are settings: one table for the process and the agent.

The agent checks them when it starts, and gives them to the serving process. This module imports
nothing that a device without a runtime lacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import check_name

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Bound:
    """One setting: ``name`` as an option, with dashes, and a whole number from least to most."""

    name: str
    metavar: str
    text: str
    default: int
    least: int
    most: int

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


BOUNDS: Final = (
    Bound("body-mib", "MIB", "size of one request body, compressed or not", 32, 1, 1024),
    Bound(
        "bodies-mib",
        "MIB",
        "all request bodies in memory, for REST and for gRPC each",
        64,
        1,
        4096,
    ),
    Bound(
        "connections", "N", "connections at one time, for REST and for gRPC each", 256, 1, 10_000
    ),
    Bound(
        "peer-connections",
        "N",
        "those of one client address; 0 is three quarters of the connections",
        0,
        0,
        10_000,
    ),
    Bound(
        "reserved-connections",
        "N",
        "further connections, for requests for health and metrics only",
        16,
        0,
        1_000,
    ),
    Bound("queue", "N", "inferences that wait for a model; or N,MODEL=N,...", 32, 0, 10_000),
    Bound(
        "client-rate", "N", "requests a second of one client address; 0 is no quota", 0, 0, 10**6
    ),
    Bound(
        "client-burst",
        "N",
        "requests that it may send at once; 0 is the requests of a second",
        0,
        0,
        10**6,
    ),
    Bound("head-s", "S", "seconds for the head of a request to arrive", 10, 1, 3_600),
    Bound("body-s", "S", "seconds for a request body to arrive", 30, 1, 3_600),
    Bound("write-s", "S", "seconds without progress in sending an answer", 30, 1, 3_600),
    Bound("idle-s", "S", "seconds until a connection without a request is closed", 120, 1, 86_400),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The settings of ``BOUNDS``, checked. ``queues`` are bounds of single models."""

    body_mib: int = 32
    bodies_mib: int = 64
    connections: int = 256
    peer_connections: int = 0
    reserved_connections: int = 16
    queue: int = 32
    client_rate: int = 0
    client_burst: int = 0
    head_s: int = 10
    body_s: int = 30
    write_s: int = 30
    idle_s: int = 120
    queues: tuple[tuple[str, int], ...] = ()

    @property
    def body_bytes(self) -> int:
        return self.body_mib * MIB

    @property
    def bodies_bytes(self) -> int:
        return self.bodies_mib * MIB

    @property
    def of_peer(self) -> int:
        """The connections of one client address."""
        return self.peer_connections or max(1, self.connections * 3 // 4)

    def queue_of(self, model: str) -> int:
        """The inferences that may wait for ``model``."""
        return dict(self.queues).get(model, self.queue)

    def value(self, bound: Bound) -> int | str:
        """The setting, as ``read_bounds`` reads it."""
        given: int = getattr(self, bound.key)
        if bound.key == "queue" and self.queues:
            return ",".join([str(given), *(f"{model}={size}" for model, size in self.queues)])
        return given

    def arguments(self) -> list[str]:
        """The options of the serving process for what is not a default."""
        given: list[str] = []
        for bound in BOUNDS:
            value = self.value(bound)
            if value != bound.default:
                given += [f"--{bound.name}", str(value)]
        return given


def read_bounds(texts: Mapping[str, str], prefix: str = "") -> Bounds:
    """The bounds from texts by their keys. A key that is absent has its default.

    Raises OperatorError ``setting_invalid``, whose field is ``prefix`` and the key.
    """
    values: dict[str, int] = {}
    queues: tuple[tuple[str, int], ...] = ()
    for bound in BOUNDS:
        text = texts.get(bound.key, str(bound.default))
        if bound.key == "queue":
            text, queues = _queues(text, bound, prefix)
        values[bound.key] = _number(text, bound, prefix)
    found = Bounds(queues=queues, **values)
    if found.bodies_mib < found.body_mib:
        text = f"All bodies have {found.bodies_mib} MiB, less than one body: {found.body_mib} MiB."
        raise OperatorError("setting_invalid", text, field=f"{prefix}bodies_mib")
    if found.peer_connections > found.connections:
        text = (
            f"One client address has {found.peer_connections} connections, and the server "
            f"{found.connections}."
        )
        raise OperatorError("setting_invalid", text, field=f"{prefix}peer_connections")
    if found.client_burst and not found.client_rate:
        raise OperatorError(
            "setting_invalid",
            "A burst needs a quota.",
            field=f"{prefix}client_burst",
            hint=f"Give {prefix}client_rate, too.",
        )
    return found


def _number(text: str, bound: Bound, prefix: str) -> int:
    if not (text.isascii() and text.isdecimal() and bound.least <= int(text[:18]) <= bound.most):
        raise OperatorError(
            "setting_invalid",
            f"{text[:64]!r} is not a whole number from {bound.least} to {bound.most}.",
            field=f"{prefix}{bound.key}",
        )
    return int(text)


def _queues(text: str, bound: Bound, prefix: str) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The number for all models, and those of single models: ``32,digits=8``."""
    general = str(bound.default)
    queues: dict[str, int] = {}
    for place, part in enumerate(text.split(",")):
        model, equals, size = part.strip().partition("=")
        if equals:
            name = check_name(model.strip(), field=f"{prefix}{bound.key}")
            queues[name] = _number(size.strip(), bound, prefix)
        elif place == 0:
            general = model
        else:
            _number("", bound, prefix)
    return general, tuple(sorted(queues.items()))


assert {one.key: one.default for one in BOUNDS} == {  # noqa: S101 - two lists of one thing
    one.name: one.default for one in fields(Bounds) if one.name != "queues"
}
