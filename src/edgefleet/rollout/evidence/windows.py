"""The window test of the bake, on the share of devices with too many bad requests.

The unit is a window of time, not the device: what all devices share in a window is one observation,
so devices that fail together count once. Of the devices with enough requests in window w, the share
x_w is *flagged*: so many of their requests are bad that chance at the limit explains it with at
most 1 %. The hypothesis is that the mean of x_w, given the windows before, is at most L (the plan's
``max_error_rate``). A bettor begins in each window with 1 / W, for W windows in a whole bake, and
bets on x_w at each stake l:

    R_w(l) = (R_{w-1}(l) + 1 / W) * (1 + l * (x_w - L))

Guarantee: the sum of the start capitals is 1 and each bet is fair or losing under the hypothesis,
so the mean of R_w over l is a nonnegative process whose value exceeds 1 / alpha at any time of the
bake with a probability of at most alpha (a Shiryaev-Roberts e-detector with weights that sum to 1;
Shin, Ramdas, Rinaldo: "E-detectors", 2024). To begin again at 0 only takes wealth away, so it keeps
the guarantee. With W windows of a year and a bar of 1, the expected time to a false alarm is a year
or more: that is the watch after the bake.

The bets alone would take one broken device in a fleet of five for "20 % of the fleet". So a finding
also needs enough *distinct* devices that were strictly flagged (1e-5): their rate, too, must refute
L. And whatever hits devices of the previous release as much is not the fault of the release: the
control has a veto, which only takes findings away.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from edgefleet.protocol.bins import lower_edge_us
from edgefleet.protocol.device import Telemetry
from edgefleet.rollout.evidence.sequential import exact_p_value, log_rate_evidence
from edgefleet.rollout.lifecycle.bake import WindowBets
from edgefleet.rollout.limits import (
    CONTROL_DEVICES,
    FLAG_P,
    STRICT_P,
    WEALTH_MAX,
    WINDOW_REQUESTS,
)

STAKES: Final = (0.5, 2.0, 6.0, 15.0)
_LARGEST: Final = 0.75  # times 1 / L: a larger stake could lose nearly all in one window

ERRORS: Final = "request_errors"
LATENCY: Final = "latency"
METRICS: Final = (ERRORS, LATENCY)


class Finding(Enum):
    """The result of the windows so far, for one metric."""

    NOTHING = auto()
    WORSE = auto()  # than allowed, and than the control
    SHARED = auto()  # worse than allowed, and the control is as bad
    ALONE = auto()  # worse than allowed, and no control shows whether the release is the cause


@dataclass(frozen=True, slots=True)
class Counted:
    """The devices of one side in one window: ``flagged`` of ``devices``, and the strict rows."""

    devices: int = 0
    flagged: int = 0
    strict: tuple[int, ...] = ()

    @property
    def share(self) -> float | None:
        return self.flagged / self.devices if self.devices else None


@dataclass(slots=True)
class OpenWindow:
    """The requests of each device in the open window. Soft: a restart of the hub loses them."""

    _canary: dict[int, list[int]] = field(default_factory=dict)
    _control: dict[int, list[int]] = field(default_factory=dict)

    def add(self, row: int, telemetry: Telemetry, limit_us: int, *, is_control: bool) -> None:
        """Add the figures of a device."""
        side = self._control if is_control else self._canary
        sums = side.setdefault(row, [0, 0, 0, 0])
        for place, count in enumerate(_counts(telemetry, limit_us)):
            sums[place] += count

    @property
    def is_ready(self) -> bool:
        """True if at least half of the canaries with requests have enough of them.

        It depends on the numbers of requests alone, never on how they ended.
        """
        enough = sum(sums[0] >= WINDOW_REQUESTS for sums in self._canary.values())
        served = sum(sums[0] > 0 for sums in self._canary.values())
        return enough > 0 and 2 * enough >= served

    def counted(self, metric: str, allowed: float, *, is_control: bool = False) -> Counted:
        """The devices with enough requests for ``metric``, and those flagged by it."""
        place = 2 * METRICS.index(metric)
        devices, flagged, strict = 0, 0, []
        for row, sums in (self._control if is_control else self._canary).items():
            requests, bad = sums[place], sums[place + 1]
            if requests < WINDOW_REQUESTS:
                continue
            devices += 1
            chance = _chance(bad, requests, allowed)
            flagged += chance <= FLAG_P
            if chance <= STRICT_P:
                strict.append(row)
        return Counted(devices, flagged, tuple(strict))


def after(
    bets: WindowBets, canary: Counted, control: Counted, *, limit: float, windows: float
) -> WindowBets:
    """The bets after one more of ``windows`` windows. Unchanged without a device that counts."""
    share = canary.share
    if share is None:
        return bets
    wealth = bets.wealth or (0.0,) * len(STAKES)
    stakes = (min(stake, _LARGEST / max(limit, 1e-9)) for stake in STAKES)
    grown = tuple(
        min((before + 1 / windows) * (1 + stake * (share - limit)), WEALTH_MAX)
        for before, stake in zip(wealth, stakes, strict=True)
    )
    return WindowBets(
        wealth=grown,
        strict=tuple(sorted({*bets.strict, *canary.strict})),
        devices=max(bets.devices, canary.devices),
        share=share,
        control=control.share if control.devices >= CONTROL_DEVICES else None,
    )


def finding(bets: WindowBets, *, limit: float, log_bar: float, distinct_bar: float) -> Finding:
    """The finding of the bets: see the module. ``log_bar`` is log(1 / alpha) of the bets.

    ``distinct_bar`` is that of the distinct devices.
    """
    share = bets.share
    if share is None or not bets.wealth or share <= limit:
        return Finding.NOTHING
    mean, strict = wealth(bets), len(bets.strict)
    if mean <= 0 or math.log(mean) < log_bar:
        return Finding.NOTHING
    devices = max(bets.devices, strict)
    if log_rate_evidence(strict, devices, limit) < distinct_bar:
        return Finding.NOTHING
    if bets.control is None:
        return Finding.ALONE
    return Finding.SHARED if bets.control >= share / 2 else Finding.WORSE


def wealth(bets: WindowBets) -> float:
    """The wealth of the bets on one metric, as an e-value."""
    return sum(bets.wealth) / len(bets.wealth) if bets.wealth else 0.0


def begun_again(bets: WindowBets) -> WindowBets:
    """The bets with all wealth taken away. The last shares stay, for people."""
    return WindowBets(share=bets.share, control=bets.control)


def limits_of(
    *,
    max_error_rate: float,
    max_latency_ms: float,
    max_latency_increase: float,
    control_error_rate: float | None,
    control_p95_us: int | None,
    margin: float,
) -> tuple[Mapping[str, float], int]:
    """The allowed share of bad requests by metric, and the duration that makes a request slow.

    Where the previous release was already above a limit of the plan, the limit is what that release
    did, and the margin that the gate allows against the control.
    """
    errors = max_error_rate
    if control_error_rate is not None and control_error_rate > max_error_rate:
        errors = min(1.0, control_error_rate + margin)
    slow_us = max_latency_ms * 1000
    if control_p95_us is not None and control_p95_us > slow_us:
        slow_us = control_p95_us * (1 + max_latency_increase)
    return {ERRORS: errors, LATENCY: 0.05}, int(min(slow_us, 1e12))


@lru_cache(maxsize=4096)
def _chance(bad: int, requests: int, allowed: float) -> float:
    return exact_p_value(bad, requests, allowed)


def _counts(telemetry: Telemetry, limit_us: int) -> tuple[int, int, int, int]:
    """Requests and failed ones; requests with a known duration and slow ones."""
    latency = {} if telemetry.sketches is None else telemetry.sketches.latency
    slow = sum(count for index, count in latency.items() if lower_edge_us(index) >= limit_us)
    return telemetry.requests, telemetry.errors, sum(latency.values()), slow
