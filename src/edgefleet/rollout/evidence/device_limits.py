"""Devices above an absolute limit, and whether they were above it before.

*A device* is judged by all requests of its trial together, not by one report. It is flagged if
chance at the limit explains so many bad requests with at most 1 %:

    P(X >= bad) <= 0.01 for X ~ Binomial(requests, limit)

A request is bad if it failed, or was refused before the release ran, with the limit of the plan;
or if it took longer than the limit of latency, of which 5 % may (p95 <= limit). A device exactly at
the limit is flagged with a probability of at most 1 %, at any one time.

*The release* fails a limit only if two tests reject, each at its own full alpha. An
intersection-union test needs no division of alpha: it errs only if both do.

1. The share of flagged devices is above ``max_error_rate`` (``sequential.log_rate_evidence``).
2. The release is worse than the one before it on the same devices. A device compares the last
   window of requests before its switch with its 1st, 2nd, 4th, 8th, ... window after it. In round
   j, u_j devices were above the limit only after the switch, and d_j only before. If the release
   changes nothing, the two windows are exchangeable, so each of these devices is a fair coin. The
   mixture of likelihood ratios

       E_j = mean over t of (2 t)^u_j (2 (1 - t))^d_j,  t = 0.6, 0.75, 0.9, 0.98

   is then a martingale that begins with 1 (the sign test as an e-process), and so is the mean of
   all rounds with the weights 6 / (pi j)^2. It exceeds 1 / alpha at any time with a probability of
   at most alpha (Ville). With an alpha of 0.1 % it takes 13 devices that are worse from the begin,
   and 17 that are worse from their 8th window on.

Where no device sent windows (older agents, memory, the first minutes), Fisher's exact test of
canary against control takes the place of test 2: given how many devices of both exceed the limit,
the number among the canaries is hypergeometric, as the positions of devices are random. Its level
holds for one look, so it is less than a guarantee. A first release is judged by test 1 alone.

The control has a veto, as in the bake (``windows``): a limit that half as large a share of the
control exceeds at the same time is not the fault of the release. A veto only takes findings away.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Scores, Telemetry
from edgefleet.protocol.metric_kinds import LimitMetric
from edgefleet.protocol.metrics import LIMITS
from edgefleet.protocol.rollout import GateSpec, LimitCounts, LimitPairs, LimitSide
from edgefleet.rollout.evidence.pairing import reach
from edgefleet.rollout.evidence.sequential import exact_p_value, share_of
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.limits import CONTROL_DEVICES, FLAG_P, LIMIT_REQUESTS

_SIGNS: Final = (0.6, 0.75, 0.9, 0.98)
_WINDOWS: Final = 128  # the last window of a device after its switch that is compared
_MOST: Final = (1 << 32) - 1  # requests of a device that a column can hold
_COUNTED: Final = 1  # flag of a device with enough requests
_FLAGS: Final[Mapping[str, int]] = MappingProxyType(
    {metric.key: 2 << place for place, metric in enumerate(LIMITS)}
)
"""The flag of a device that exceeds the limit, for each limit of the table."""


def is_flagged(bad: int, requests: int, share: float) -> bool:
    """True if chance at ``share`` explains ``bad`` of ``requests`` with at most 1 %."""
    return bad > share * requests and _chance(bad, requests, share) <= FLAG_P


def sign_evidence(rounds: Sequence[LimitPairs]) -> float:
    """The log e-value of the pairs, by round, against "the release changes nothing"."""
    logs = [
        math.log(share_of(number)) + _log_odds(pairs.worse, pairs.better)
        for number, pairs in enumerate(rounds, 1)
    ]
    unused = 1 - sum(share_of(number) for number in range(1, len(rounds) + 1))
    return _log_sum([*logs, math.log(unused)])


def _log_odds(worse: int, better: int) -> float:
    """The log e-value of one round."""
    logs = [worse * math.log(2 * t) + better * math.log(2 * (1 - t)) for t in _SIGNS]
    return _log_sum(logs) - math.log(len(logs))


def _log_sum(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs))


def clearest(rounds: Sequence[LimitPairs]) -> LimitPairs:
    """The round with the most evidence, for people."""
    return max(rounds, key=lambda pairs: _log_odds(pairs.worse, pairs.better))


def is_shared(counts: LimitCounts, metric: LimitMetric) -> bool:
    """True if the control exceeds the limit half as often as the canary, or more often."""
    control = counts.control
    if not counts.devices or control.devices < CONTROL_DEVICES:
        return False
    ours, theirs = above(counts, metric), above(control, metric)
    return 2 * theirs * counts.devices >= ours * control.devices > 0


def control_p_value(counts: LimitCounts, metric: LimitMetric) -> float:
    """The one-sided p-value of Fisher's exact test: the canary exceeds the limit more often."""
    mine, theirs = above(counts, metric), above(counts.control, metric)
    devices, others = counts.devices, counts.control.devices
    both = mine + theirs
    least = max(mine, both - others)
    total = 0.0
    for number in range(least, min(both, devices) + 1):
        log = _log_choose(devices, number) + _log_choose(others, both - number)
        term = math.exp(log - _log_choose(devices + others, both))
        total += term
        if term < 1e-9 * total:
            break
    return min(1.0, max(total, 1e-300))


def _log_choose(count: int, of: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(of + 1) - math.lgamma(count - of + 1)


def above(side: LimitSide, metric: LimitMetric) -> int:
    """The devices of one side that exceed the limit."""
    count: int = getattr(side, metric.counter)
    return count


class _Limit(NamedTuple):
    """One limit of a plan, with the columns of the requests that count for it."""

    metric: LimitMetric
    flag: int
    allowed: float
    share: float  # of the requests of a device that may be bad
    requests: "array[int]"
    bad: "array[int]"


class DeviceLimits:
    """The devices of one side that exceed the absolute limits. Soft state, 37 bytes a row."""

    def __init__(self) -> None:
        self._gate: GateSpec | None = None  # of ``_limits``
        self._limits: tuple[_Limit, ...] = ()
        self._served = array("I")
        self._flags = bytearray()
        self._devices: dict[int, int] = {}  # flag -> devices

    def add(
        self, row: int, report: Telemetry, gate: GateSpec, memory_mib: int, *, is_warm: bool
    ) -> None:
        """Add a report. The latencies of a device that is not warm do not count."""
        if not report.asked:
            return
        self._make_room(row, gate)
        served = self._served
        served[row] = min(served[row] + report.asked, _MOST)
        flags = _COUNTED if served[row] >= LIMIT_REQUESTS else 0
        for metric, flag, allowed, share, requests, bad in self._limits:
            if metric.needs_warmth and not is_warm:
                continue
            counts = None if metric.counted is None else metric.counted(report, allowed)
            if counts is None:
                exceeds = metric.exceeds(report, allowed, memory_mib)
            else:
                requests[row] = most = min(requests[row] + counts[0], _MOST)
                bad[row] = failed = min(bad[row] + counts[1], most)
                exceeds = is_flagged(failed, most, share)
            if exceeds and flags:
                flags |= flag
        before = self._flags[row]
        if flags != before:
            self._flags[row] = flags
            for flag in (_COUNTED, *_FLAGS.values()):
                self._count(flag, bool(flags & flag) - bool(before & flag))

    def add_all(
        self, rows: Rows, report: Telemetry, gate: GateSpec, memory_mib: int, *, is_warm: bool
    ) -> None:
        """``add`` for many devices that report the same."""
        if not report.asked or not len(rows):
            return
        self._make_room(int(rows.max()), gate)
        enough = _grow(self._served, rows, report.asked) >= LIMIT_REQUESTS
        flags = np.where(enough, _COUNTED, 0).astype(np.uint8)
        for metric, flag, allowed, share, requests, bad in self._limits:
            if metric.needs_warmth and not is_warm:
                continue
            counts = None if metric.counted is None else metric.counted(report, allowed)
            if counts is None:
                exceeds = enough & metric.exceeds(report, allowed, memory_mib)
            else:
                most = _grow(requests, rows, counts[0])
                failed = np.minimum(_grow(bad, rows, counts[1]), most)
                exceeds = enough & (failed > share * most)
                for place in np.flatnonzero(exceeds).tolist():
                    exceeds[place] = is_flagged(int(failed[place]), int(most[place]), share)
            flags[exceeds] |= flag
        column = np.frombuffer(self._flags, np.uint8)
        before = column[rows]
        column[rows] = flags
        for flag in (_COUNTED, *_FLAGS.values()):
            change = np.count_nonzero(flags & flag) - np.count_nonzero(before & flag)
            self._count(flag, int(change))

    def side(self) -> LimitSide:
        """The devices above each limit, of those with enough requests."""
        devices = self._devices
        exceeding = {metric.counter: devices.get(_FLAGS[metric.key], 0) for metric in LIMITS}
        return LimitSide(devices=devices.get(_COUNTED, 0), **exceeding)

    def _count(self, flag: int, change: int) -> None:
        if change:
            self._devices[flag] = self._devices.get(flag, 0) + change

    def _make_room(self, row: int, gate: GateSpec) -> None:
        if gate is not self._gate:
            self._arrange(gate)
        if row < len(self._served):
            return
        reach(self._flags, row)
        empty = array("I", bytes(4 * (len(self._flags) - len(self._served))))
        self._served.extend(empty)
        for limit in self._limits:
            limit.requests.extend(empty)
            limit.bad.extend(empty)

    def _arrange(self, gate: GateSpec) -> None:
        """Read the limits of the plan. The columns stay."""
        columns = {limit.metric.key: (limit.requests, limit.bad) for limit in self._limits}
        self._gate, self._limits = gate, tuple(
            _Limit(
                metric, _FLAGS[metric.key], metric.allowed(gate), metric.share(gate),
                *columns.get(metric.key, (array("I"), array("I"))),
            )
            for metric in LIMITS
        )  # fmt: skip


class SwitchPairs:
    """The windows of devices before and after their switch, against the absolute limits.

    The counts are stored, so a restart of the hub continues them. A device whose switch was before
    a restart takes no part in later rounds: its window before the switch is not known any more.
    """

    def __init__(self, rounds: Mapping[str, Sequence[LimitPairs]] = MappingProxyType({})) -> None:
        self._before = bytearray()  # by row: the flags of the limits before the switch
        self._windows = bytearray()  # by row: the windows since the switch; 0 before it
        self._rounds = {key: list(pairs) for key, pairs in rounds.items()}

    def add(self, row: int, scores: Scores, gate: GateSpec) -> None:
        """Add the scores of a device that runs the release. Each device counts once in a round."""
        reach(self._before, row)
        reach(self._windows, row)
        is_switch = scores.from_release != scores.to_release
        count = self._windows[row]
        if is_switch == bool(count) or count == _WINDOWS:
            return
        self._windows[row] = count = count + 1
        if count & (count - 1):  # between two rounds
            return
        for metric in LIMITS:
            windows = None if metric.windows is None else metric.windows(scores)
            if windows is None:
                continue
            requests = metric.compared(scores)
            before, after = (_exceeds(metric, figure, requests, gate) for figure in windows)
            flag = _FLAGS[metric.key]
            if is_switch:
                self._before[row] |= flag if before else 0
            self._count(metric.key, count, after - bool(self._before[row] & flag))

    def rounds(self) -> dict[str, tuple[LimitPairs, ...]]:
        """The compared devices by metric and round."""
        return {key: tuple(pairs) for key, pairs in self._rounds.items()}

    def _count(self, key: str, windows: int, change: int) -> None:
        """Count a device in the round of so many windows. ``change`` is 1 if it got worse."""
        rounds = self._rounds.setdefault(key, [])
        number = windows.bit_length() - 1
        rounds.extend(LimitPairs() for _ in range(number + 1 - len(rounds)))
        known = rounds[number]
        rounds[number] = LimitPairs(
            pairs=known.pairs + 1,
            worse=known.worse + (change > 0),
            better=known.better + (change < 0),
        )


def _exceeds(metric: LimitMetric, figure: float, requests: int, gate: GateSpec) -> bool:
    """True if the figure of a window is above the limit. A rate has to be clearly above it."""
    if metric.tail is not None:
        return figure > metric.allowed(gate)
    return is_flagged(round(figure * requests), requests, metric.allowed(gate))


def _grow(column: "array[int]", rows: Rows, count: int) -> npt.NDArray[np.uint32]:
    """Add ``count`` to ``rows`` of the column. Returns their new values."""
    view = np.frombuffer(column, np.uint32)
    grown: npt.NDArray[np.uint32] = np.minimum(
        view[rows].astype(np.uint64) + np.uint64(count), _MOST
    ).astype(np.uint32)
    view[rows] = grown
    return grown


@lru_cache(maxsize=1 << 16)
def _chance(bad: int, requests: int, share: float) -> float:
    return exact_p_value(bad, requests, share)
