"""The health of serving on a device: what is down, and how often the processes that serve ended.

A device sends it with each check-in while there is something to report, and sends nothing of it
otherwise. So the hub shows an observation of the last check-in, and keeps no memory of its own. All
times are ages in seconds: the clock of a device may be wrong.
"""

import signal
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgefleet.base.limits import MODELS_PER_DEVICE, NAME_CHARS
from edgefleet.protocol.wire import Wire

ENDS_WITHIN_S: Final = 3600.0
"""Ends of a process that serves are reported for so long."""

CAUSES: Final = 8  # in one report, at most

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Cause = Annotated[str, Meta(max_length=32, pattern=r"^[A-Za-z0-9_]+\Z")]
Age = Annotated[float, Meta(ge=0, le=1e10)]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]

# Causes that are no signal. Signals have their names, such as SIGKILL.
OUT_OF_MEMORY: Final = "out_of_memory"  # SIGKILL by the kernel
HUNG: Final = "hung"  # ended by its supervisor, because it did not answer
UNKNOWN: Final = "unknown"  # it was no child of this agent: only its parent gets the signal
_TEXTS: Final = {
    OUT_OF_MEMORY: "SIGKILL (out of memory)",
    HUNG: "hung",
    UNKNOWN: "cause not known",
}


class ServingEnds(Wire, frozen=True, kw_only=True):
    """Ends of a process that serves confirmed releases, by one cause. The last was ``last_s`` ago.

    ``cause`` is the name of a signal, ``exit_N``, or one of the causes of this module.
    """

    cause: Cause
    count: Count
    last_s: Age


class ServingHealth(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """The trouble with serving on a device.

    ``down`` are the models whose confirmed release is not served, for ``down_s`` seconds; None if
    all are. ``ends`` are those of the last hour, the latest cause first. ``by_model`` counts, for
    each model, the ends of a process that served its present release.
    """

    down_s: Age | None = None
    down: Annotated[tuple[Name, ...], Meta(max_length=MODELS_PER_DEVICE)] = ()
    ends: Annotated[tuple[ServingEnds, ...], Meta(max_length=CAUSES)] = ()
    by_model: Annotated[dict[Name, Count], Meta(max_length=MODELS_PER_DEVICE)] = msgspec.field(
        default_factory=dict
    )


class EndsView(Wire, frozen=True, kw_only=True):
    """``ServingEnds`` with the time of the last end, in seconds since the epoch."""

    cause: str
    count: int
    last_at: float


class ServingView(Wire, frozen=True, kw_only=True):
    """``ServingHealth`` for people. ``down_since`` is None if every confirmed release is served.

    ``short`` is a few words for a column, without a time. ``text`` is one sentence.
    """

    status: Literal["down", "unstable"]
    down_since: float | None = None
    down: tuple[str, ...] = ()
    ends: tuple[EndsView, ...] = ()
    short: str = ""
    text: str = ""

    @property
    def since(self) -> float:
        """The time since which serving is down. While it is up: the time of the last end."""
        if self.down_since is not None:
            return self.down_since
        return max(one.last_at for one in self.ends)


def end_cause(code: int | None) -> str:
    """The cause for an exit code of ``subprocess``. None: the code is not known."""
    if code is None:
        return UNKNOWN
    if code >= 0:
        return f"exit_{code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal_{-code}"


def cause_text(cause: str) -> str:
    """The cause in words."""
    kind, _, number = cause.partition("_")
    return f"exit code {number}" if kind == "exit" else _TEXTS.get(cause, cause)


def view_of(health: ServingHealth, at: float) -> ServingView | None:
    """The health that a device reported at ``at``. None if it reported nothing."""
    ends = tuple(
        EndsView(cause=one.cause, count=one.count, last_at=at - one.last_s) for one in health.ends
    )
    if health.down_s is None and not ends:
        return None
    short = ", ".join(f"{one.count}x {cause_text(one.cause)}" for one in ends)
    text = _ends_text(ends, short)
    if health.down_s is not None:
        models = ", ".join(health.down) or "any model"
        text = f"Serving is down: no release of {models} is served. {text}".rstrip()
    return ServingView(
        status="unstable" if health.down_s is None else "down",
        down_since=None if health.down_s is None else at - health.down_s,
        down=health.down,
        ends=ends,
        short=short,
        text=text,
    )


def _ends_text(ends: tuple[EndsView, ...], short: str) -> str:
    if not ends:
        return ""
    count = sum(one.count for one in ends)
    times = "once" if count == 1 else f"{count} times"
    return f"The serving process ended by itself {times} in the last hour ({short})."
