"""Settings of the fallback: another endpoint that may answer requests of a device.

The agent checks them and passes them on as they are; the serving process reads them. Without an
address nothing leaves the device.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from edgefleet.base.errors import OperatorError

WHEN: Final = "overload,missing"
BUDGET: Final = "share=10%,per-minute=60,bytes-per-day=100000000"
TIMEOUT_S: Final = "5"

Percentile = Literal["p95", "p99"]

_LONGEST_S: Final = 60.0
_MOST_PER_MINUTE: Final = 60_000
_MOST_BYTES: Final = 10**12
_HINT_WHEN: Final = (
    "Give some of overload, missing, error, confidence=LIMIT, hedge=DELAY, separated by commas."
)
_HINT_BUDGET: Final = "Give share=10%,per-minute=60,bytes-per-day=100000000, or some of them."


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint. ``path`` is put in front of the path of a request, and has no slash at its end.

    ``host_header`` is the value of the header Host.
    """

    tls: bool
    host: str
    port: int
    path: str
    host_header: str

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host_header}{self.path}"


@dataclass(frozen=True, slots=True)
class When:
    """The events after which a request is forwarded.

    ``overload``: the queue is full. ``missing``: no release of the model is served here. ``error``:
    the model failed. ``confidence``: the least confident item of the answer is below this limit, 0
    to 1. ``hedge``: the answer has not come after a percentile of the latency of the release, or
    after so many seconds. None: never.
    """

    overload: bool = False
    missing: bool = False
    error: bool = False
    confidence: float | None = None
    hedge: Percentile | float | None = None


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits of all forwarded requests together.

    ``share`` is of the requests of clients, above 0 and at most 1. ``bytes_per_day`` counts
    requests and answers.
    """

    share: float
    per_minute: int
    bytes_per_day: int


@dataclass(frozen=True, slots=True)
class FallbackSettings:
    """The whole setting. ``ca_file`` and ``token_file`` are empty without one.

    ``timeout_s`` is the longest time of one forwarded request, in seconds.
    """

    address: Address
    when: When
    budget: BudgetLimits
    timeout_s: float
    ca_file: str = ""
    token_file: str = ""


def read_fallback(
    url: str,
    *,
    when: str = WHEN,
    budget: str = BUDGET,
    timeout_s: str = TIMEOUT_S,
    ca_file: str = "",
    token_file: str = "",
) -> FallbackSettings | None:
    """The settings. None without an address. All texts are checked in any case.

    Raises OperatorError ``setting_invalid``; its field is the key of the agent's option.
    """
    events, limits = _when(when), _budget(budget)
    longest_s = _number(timeout_s, "fallback_timeout_s", "a number of seconds", 0.001, _LONGEST_S)
    if not url:
        return None
    address = _address(url)
    if ca_file and not address.tls:
        raise _wrong("fallback_ca_file", f"{url!r} has no TLS.", "Give an address with https://.")
    if token_file and not address.tls and not _is_loopback(address.host):
        raise _wrong(
            "fallback_token_file",
            f"A token would be sent to {url!r} in plain text.",
            "Give an address with https://.",
        )
    return FallbackSettings(address, events, limits, longest_s, ca_file, token_file)


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    clean = url.isascii() and url.isprintable() and " " not in url
    if (
        not clean
        or parts.scheme not in ("http", "https")
        or not host
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise _wrong(
            "fallback",
            f"{url.rpartition('@')[2]!r} is not the address of an endpoint.",
            "Give https://HOST:PORT, without a user, a password and a query.",
        )
    tls = parts.scheme == "https"
    return Address(tls, host, port or (443 if tls else 80), parts.path.rstrip("/"), parts.netloc)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _when(text: str) -> When:
    field = "fallback_when"
    plain: dict[str, bool] = {}
    confidence: float | None = None
    hedge: Percentile | float | None = None
    for name, value in _pairs(text, field, _HINT_WHEN):
        match name, value:
            case "overload" | "missing" | "error", None:
                plain[name] = True
            case "confidence", str():
                confidence = _number(value, field, "a confidence", 0.0, 1.0)
            case "hedge", "p95" | "p99":
                hedge = value
            case "hedge", str():
                hedge = _seconds(value, field)
            case _:
                shown = name if value is None else f"{name}={value}"
                raise _wrong(field, f"{shown!r} is not an event.", _HINT_WHEN)
    if not plain and confidence is None and hedge is None:
        raise _wrong(field, "No event is named.", _HINT_WHEN)
    return When(**plain, confidence=confidence, hedge=hedge)


def _budget(text: str) -> BudgetLimits:
    field = "fallback_budget"
    found = dict(_pairs(BUDGET, field, _HINT_BUDGET))
    for name, value in _pairs(text, field, _HINT_BUDGET):
        if name not in found or value is None:
            raise _wrong(field, f"{name!r} is not a limit of a budget.", _HINT_BUDGET)
        found[name] = value
    share = found["share"] or ""
    if not share.endswith("%"):
        raise _wrong(field, f"The share {share!r} has no percent sign.", _HINT_BUDGET)
    return BudgetLimits(
        share=_number(share[:-1], field, "a percentage", 0.0001, 100.0) / 100,
        per_minute=_count(found["per-minute"], field, "requests a minute", _MOST_PER_MINUTE),
        bytes_per_day=_count(found["bytes-per-day"], field, "bytes a day", _MOST_BYTES),
    )


def _pairs(text: str, field: str, hint: str) -> Iterable[tuple[str, str | None]]:
    """``a,b=c`` as (a, None), (b, c), each name once."""
    names: set[str] = set()
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name in names:
            raise _wrong(field, f"{name!r} is named twice.", hint)
        names.add(name)
        yield name.strip(), value.strip() if equals else None


def _seconds(text: str, field: str) -> float:
    for unit, factor in (("ms", 0.001), ("s", 1.0)):
        number = text.removesuffix(unit)
        if number != text and re.fullmatch(r"[0-9]{1,5}(?:\.[0-9]{1,3})?", number):
            delay_s = float(number) * factor
            if 0.001 <= delay_s <= _LONGEST_S:
                return delay_s
    raise _wrong(
        field,
        f"{text!r} is not a delay of 1 ms to {_LONGEST_S:g} s.",
        "Give p95, p99, or a time such as 50ms or 0.5s.",
    )


def _number(text: str, field: str, noun: str, least: float, most: float) -> float:
    if not re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{1,15})?", text) or not least <= float(text) <= most:
        raise _wrong(
            field, f"{text!r} is not {noun} from {least:.15g} to {most:.15g}.", "Fix this number."
        )
    return float(text)


def _count(text: str | None, field: str, noun: str, most: int) -> int:
    if text is None or not re.fullmatch(r"[0-9]{1,15}", text) or not 1 <= int(text) <= most:
        raise _wrong(
            field, f"{text!r} is not a number of {noun} from 1 to {most}.", "Fix this number."
        )
    return int(text)


def _wrong(field: str, message: str, hint: str) -> OperatorError:
    return OperatorError("setting_invalid", message, field=field, hint=hint)
