"""Failures that begin late, in one rollout: the detector on the order in which devices began."""

import math
from typing import Final, NamedTuple

import numpy as np

from edgefleet.protocol.rollout import GateSpec, LateFailures, Part
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.detector import NOTHING_FOUND, Finding, detect
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.evidence.sequential import e_value
from edgefleet.rollout.evidence.taken_parts import TakenParts
from edgefleet.rollout.fleet.columns import Rows

# Bound once: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_REFUSED: Final = DeviceStanding.REFUSED
_REVERTED: Final = DeviceStanding.REVERTED
_FAILED: Final = DeviceStanding.FAILED

_BRAKE: Final = math.log(3)
"""The log of the mean likelihood ratio above which no more devices may be in trial at once.

It is no verdict. At a good rate it is seldom reached, and a brake costs minutes."""


class _Evaluation(NamedTuple):
    """A finding, and the failures since the start that contributes most to it."""

    finding: Finding = NOTHING_FOUND
    failures: LateFailures = LateFailures()


class Late:
    """The detector of one rollout. Its finding is a function of the ledger and its arguments."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._limit = 0.05
        self._taken: TakenParts[Part] | None = None
        self._silent: Rows = np.zeros(0, np.int64)
        self._known: tuple[int, ...] = ()  # the counts of the ledger at the last look
        self._last = _Evaluation()

    def arrange(self, limit: float, taken: TakenParts[Part] | None = None) -> None:
        """Set the limit of failures. Devices of the parts in ``taken`` count no more."""
        if (limit, taken) != (self._limit, self._taken):
            self._limit, self._taken, self._known = limit, taken, ()

    def update(self, silent: Rows) -> None:
        """Look anew. ``silent`` are the devices in trial that count as failed, ascending."""
        self._evaluate(silent)

    @property
    def silent(self) -> Rows:
        """The devices in trial that count as failed, as at the last evaluation."""
        return self._silent

    @property
    def brakes(self) -> bool:
        """True while the limit of devices in trial does not grow, as at the last look.

        A first look is taken without silent devices.
        """
        if not self._known:
            self._evaluate(self._silent)
        return self._is_braking

    @property
    def _is_braking(self) -> bool:
        return self._last.finding.log_ratio > _BRAKE

    def is_sure(self, spec: GateSpec) -> bool:
        """True if the detector fails the release, as at the last look."""
        return self._last.finding.log_e_value >= alphas.LATE.log_bar(spec)

    def failures(self, silent: Rows) -> LateFailures:
        """The finding as evidence. ``silent`` as in ``update``."""
        return self._evaluate(silent).failures

    def _evaluate(self, silent: Rows) -> _Evaluation:
        """Look at the ledger, unless nothing failed since the last look and no brake is on.

        Without a new failure, devices that begin or confirm make the evidence only weaker.
        """
        counts = self._ledger.counts
        known = (counts[_FAILED], counts[_REFUSED], counts[_REVERTED])
        if known != self._known or self._is_braking or not np.array_equal(silent, self._silent):
            self._known, self._silent, self._last = known, silent, self._evaluate_anew(silent)
        return self._last

    def _evaluate_anew(self, silent: Rows) -> _Evaluation:
        ledger, activations = self._ledger, self._ledger.activations
        failed = ledger.rows(_FAILED, _REFUSED)
        begun = activations.begun()
        if not len(begun) or not (len(failed) or len(silent)):
            return _Evaluation()
        silent = silent[ledger.standings(silent) == _TRIAL]
        if self._taken:
            failed, silent = (rows[~self._taken.all_have(rows)] for rows in (failed, silent))
        bad = activations.count(failed) + activations.count(silent)
        out = ledger.rows(_REVERTED)
        if self._taken:
            out = np.union1d(out, ledger.begun_rows[self._taken.all_have(ledger.begun_rows)])
        begun -= activations.count(out)
        finding = detect(begun, bad, activations.log_weights(), self._limit)
        since = slice(finding.start, finding.end + 1)
        episode = activations.episode_of(finding.start)
        failures = LateFailures(
            bad=int(bad[since].sum()),
            size=int(begun[since].sum()),
            before=int(begun[: finding.start].sum()),
            since=activations.time(activations.bucket_key(finding.start)),
            episode_since=activations.time(episode) if episode else None,
            e_value=e_value(finding.log_e_value),
        )
        return _Evaluation(finding, failures)
