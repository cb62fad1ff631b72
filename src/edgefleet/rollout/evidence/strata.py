"""Devices that go dark, by site and time: whether the release is the cause, or the site.

A stratum is the devices of one site that had the same chance to begin. Devices that go dark close
to each other in a stratum are one group, because what hits a site hits many of its devices. Of n1
canaries (in trial) and n0 controls (not begun) that were at risk when the group began, y1 and y0
went dark, m = y1 + y0 together. If the release changes nothing, the positions of the devices, which
are hashes, decide which of the m are canaries: y1 is hypergeometric, whatever happened to the site.

    log E(psi) = sum over groups of (y1 log psi - log sum over j of Hyp(j; m, n1, n0) psi^j)

This is the conditional likelihood ratio of Fisher's noncentral law with the odds ratio psi, in the
family of the safe tests of Turner, Ly and Gruenwald ("Generic E-variables for exact sequential
k-sample tests", 2024) and the safe logrank test (Turner, Gruenwald 2023). The mean of E over the
fixed odds ratios below is an e-process, so it ever reaches 1 / alpha with a probability of at most
alpha. A site that goes dark whole, or without canaries, changes it by a factor of exactly 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet.rollout.evidence.sequential import exact_p_value

ODDS: Final = (2.0, 4.0, 10.0, 30.0, 100.0, 1000.0)
LEAST_CONTROL: Final = 0.2
"""The share of a stratum that must be controls.

With a smaller control, each dark canary is worth less than log(1 / 0.8), and the comparison cannot
tell a release from a site."""

_OUTAGE_P: Final = 0.01
_LEAST_DARK: Final = 2  # controls; one may go dark at any time


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of one stratum that were at risk together, and those of them that went dark."""

    canaries: int
    controls: int
    dark_canaries: int = 0
    dark_controls: int = 0

    @property
    def has_control(self) -> bool:
        """True if enough of the devices at risk were controls."""
        return self.controls > 0 and has_control(self.canaries, self.controls)

    def log_factors(self) -> tuple[float, ...]:
        """The log of the factor by which E grows, for each odds ratio. 0 without information."""
        dark = self.dark_canaries + self.dark_controls
        least, most = max(0, dark - self.controls), min(dark, self.canaries)
        if not dark or least == most:
            return (0.0,) * len(ODDS)
        whole = _log_choose(self.canaries + self.controls, dark)
        chances = [
            (j, _log_choose(self.canaries, j) + _log_choose(self.controls, dark - j) - whole)
            for j in range(least, most + 1)
        ]
        return tuple(
            self.dark_canaries * math.log(odds)
            - _log_sum([chance + j * math.log(odds) for j, chance in chances])
            for odds in ODDS
        )

    def p_value(self) -> float:
        """The probability of so many or more canaries among the dark devices, by chance alone."""
        dark = self.dark_canaries + self.dark_controls
        whole = _log_choose(self.canaries + self.controls, dark)
        most = min(dark, self.canaries)
        least = max(self.dark_canaries, dark - self.controls)
        chances = (
            math.exp(_log_choose(self.canaries, j) + _log_choose(self.controls, dark - j) - whole)
            for j in range(least, most + 1)
        )
        return min(1.0, math.fsum(chances))

    def is_outage(self, allowed: float) -> bool:
        """True if the site, and not the release, explains the dark canaries.

        The control went dark more often than a release may (``allowed`` is the limit of silence),
        and the canaries not significantly more often than the control. To leave such devices out of
        a test takes failures away and adds none, so it raises no false-alarm rate.
        """
        if self.dark_controls < _LEAST_DARK or not self.dark_canaries:
            return False
        by_itself = exact_p_value(self.dark_controls, self.controls, allowed) <= _OUTAGE_P
        return by_itself and self.p_value() > _OUTAGE_P


def has_control(canaries: int, controls: int) -> bool:
    """True if controls are at least LEAST_CONTROL of the devices at risk."""
    return controls >= LEAST_CONTROL * (canaries + controls)


def grown(log_wealth: Sequence[float], groups: Sequence[Group]) -> tuple[float, ...]:
    """The log of E for each odds ratio, after more groups. Groups without a control do not count.

    ``log_wealth`` is empty before the first group.
    """
    sums = list(log_wealth) or [0.0] * len(ODDS)
    for group in groups:
        if group.has_control:
            sums = [old + new for old, new in zip(sums, group.log_factors(), strict=True)]
    return tuple(sums)


def log_evidence(log_wealth: Sequence[float]) -> float:
    """The log e-value of "the release makes no device go dark". 0 before the first group."""
    return _log_sum(log_wealth) - math.log(len(log_wealth)) if log_wealth else 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """The devices of one site that began, and the bad ones among them."""

    bad: int
    begun: int


def exceeds_chance(site: Site, every: Site, sites: int) -> bool:
    """True if a site has more bad devices than chance explains, if it is no different.

    ``every`` counts the devices of all ``sites``, this one included. The p-value is hypergeometric,
    times the number of sites, because the worst of them is asked about.
    """
    rest = every.begun - site.begun
    split = Group(site.begun, rest, site.bad, every.bad - site.bad)
    return sites > 1 and rest > 0 and sites * split.p_value() <= _OUTAGE_P


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(log - top) for log in logs))
