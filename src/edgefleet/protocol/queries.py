"""The query parameters of the endpoints, beside the table of endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from edgefleet.protocol.device import Phase
from edgefleet.protocol.device_commands import SEARCH_CHARS, STANDINGS, STATES
from edgefleet.protocol.rollout import Status


@dataclass(frozen=True, slots=True)
class Query:
    """One parameter. ``most`` is the largest number, or the number of characters of a text."""

    name: str
    text: str
    kind: Literal["text", "number", "flag"] = "text"
    most: int | None = None
    values: tuple[str, ...] = ()  # the allowed ones; empty: any
    is_repeated: bool = False
    least: int = 1  # of a number


_LIMIT: Final = Query("limit", "The most entries of one page.", "number", 1_000)
_AFTER: Final = Query("after", "The `next` of the page before this one.", most=200)
_MODEL: Final = Query("model", "Only of this model.", most=63)

QUERIES: Final[Mapping[str, tuple[Query, ...]]] = MappingProxyType(
    {
        "devices": (
            _AFTER,
            _LIMIT,
            Query("selector", "Kubernetes label selector.", most=4_096),
            Query("runs", "`model` or `model:release` that runs on the device.", most=127),
            Query("phase", "The phase of one of its models.", values=tuple(Phase)),
            Query("state", "A state of the device.", values=STATES, is_repeated=True),
            Query("search", "A part of the name or of a label's value.", most=SEARCH_CHARS),
            Query("profile", "The hardware class.", most=63),
            Query("runtime", "A runtime of the device.", most=63),
            Query("agent", "The version of the agent.", most=32),
            Query("rollout", "Only devices that reported to this rollout.", most=63),
            Query("standing", "The standing in `rollout`.", values=STANDINGS),
        ),
        "names": (
            Query("prefix", "Only names that begin so.", most=63),
            _MODEL,
            _LIMIT,
        ),
        "rollouts": (
            _AFTER,
            Query("limit", "The most rollouts of one page.", "number", 100),
            _MODEL,
            Query("status", "Only with this status.", values=tuple(Status)),
        ),
        "events": (
            Query("after", "Only events after this id.", "number", (1 << 59) - 1, least=0),
            Query("kind", "Such as `rollout.halt`, `device.*`.", most=64, is_repeated=True),
            Query("follow", "`false`: end after the events that are there.", "flag"),
        ),
        "audit": (
            Query("before", "Only entries older than this id.", "number", (1 << 62) - 1),
            _LIMIT,
        ),
    }
)
"""By the name of the endpoint."""
