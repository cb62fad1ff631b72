"""Which requests are forwarded, and the words for what came of it. Pure."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from edgefleet.protocol.fallback import When
from edgefleet.serving.limits import FALLBACK_LEARNT

HOP: Final = "edgefleet-hop"
"""The header of a forwarded request. A device answers such a request by itself."""
ANSWERED_BY: Final = "edgefleet-answered-by"
"""The header of a reply: ``local`` or ``fallback``."""
NOTE: Final = "edgefleet-fallback"
"""The header of a reply after an event of the policy: ``EVENT; OUTCOME``."""

_LEAST_DELAY_S: Final = 0.001
_SHARES: Final = {"p95": 0.95, "p99": 0.99}


class Event(StrEnum):
    """The reason to forward a request."""

    OVERLOAD = "overload"
    MISSING = "missing"
    ERROR = "error"
    CONFIDENCE = "confidence"
    HEDGE = "hedge"


class Outcome(StrEnum):
    """The result of an event. Only ``ANSWERED`` has an answer of the fallback."""

    ANSWERED = "answered"
    LOCAL_FIRST = "local_first"
    BUDGET_SHARE = "budget_share"
    BUDGET_MINUTE = "budget_minute"
    BUDGET_BYTES = "budget_bytes"
    BUSY = "busy"
    BREAKER_OPEN = "breaker_open"
    DEADLINE = "deadline"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    MALFORMED = "malformed"
    SETTING = "setting"


SENTENCES: Final = {
    Outcome.BUDGET_SHARE: "its budget, a share of the requests, is used up",
    Outcome.BUDGET_MINUTE: "its budget of requests a minute is used up",
    Outcome.BUDGET_BYTES: "its budget of bytes a day is used up",
    Outcome.BUSY: "too many forwarded requests are in progress",
    Outcome.BREAKER_OPEN: "it failed several times and is asked again after a pause",
    Outcome.DEADLINE: "the timeout of the request was over",
    Outcome.UNREACHABLE: "it could not be reached",
    Outcome.TIMEOUT: "it did not answer in time",
    Outcome.REFUSED: "it refused the request",
    Outcome.MALFORMED: "its answer could not be read",
    Outcome.SETTING: "its CA file or token file cannot be used",
}
"""Why there is no answer of the fallback, as the end of a sentence."""


def event_of_error(when: When, code: str, *, is_served: bool) -> Event | None:
    """The event of a local error. None: the local error is the answer.

    ``is_served``: this device serves a release of the model now.
    """
    if not is_served:
        return Event.MISSING if when.missing and code in ("not_ready", "not_found") else None
    match code:
        case "overloaded":
            return Event.OVERLOAD if when.overload else None
        case "inference_failed":
            return Event.ERROR if when.error else None
        case _:
            return None


def is_unsure(when: When, confidence: float | None) -> bool:
    """Whether an answer is below the limit. None: the release declares no class scores."""
    return (
        when.confidence is not None
        and confidence is not None
        and not confidence >= when.confidence  # also if it is not a number
    )


def hedge_delay_s(when: When, answers: int, quantile_us: Callable[[float], int]) -> float | None:
    """How long to wait for the local answer, in seconds. None: as long as it takes.

    ``answers`` are those of the release so far, ``quantile_us`` their latency.
    """
    if when.hedge is None:
        return None
    if not isinstance(when.hedge, str):
        return when.hedge
    if answers < FALLBACK_LEARNT:
        return None
    return max(_LEAST_DELAY_S, quantile_us(_SHARES[when.hedge]) / 1e6)
