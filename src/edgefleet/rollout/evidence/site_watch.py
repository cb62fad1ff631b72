"""Groups of devices that go dark at one time in one stratum, in one rollout.

A device is dark when it has not checked in for ``dark_s``, which is the same for canaries (in
trial) and controls (not begun). At each look, the devices of a quiet stratum that are not dark are
*at risk*. The first of them that goes dark opens a group, and the devices at risk then stay in it.
It is closed when no device went dark for two of the longest intervals between check-ins: one site
goes dark at once, but its devices are noticed one by one, and canaries may check in more often than
controls. So a group that is closed too early has the canaries of an outage without its controls. A
stream of dark devices would keep a group open for ever, therefore it is closed after ten intervals.

A canary that confirms or fails in an open group counts as not dark, and a control that begins
becomes a canary. Both make the canaries look better, never worse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.rollout import Outage, SiteComparison
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.evidence.sequential import e_value
from edgefleet.rollout.evidence.strata import Group, grown, has_control, log_evidence
from edgefleet.rollout.fleet.columns import Mask, Rows, longer
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.site_bets import SiteBets
from edgefleet.rollout.limits import LOOKS_PER_CHECK_IN, MOST_CHECK_INS, QUIET_CHECK_INS

_NOT_AT_RISK: Final = 0
_CONTROL: Final = 1
_CANARY: Final = 2
_HALF_KEY_S: Final = 0.05  # from the first moment of a key to its middle

StratumOf = Callable[[Mapping[str, str]], tuple[str, ...]]
"""The stratum of a device with these labels. The first item is its site, empty without one."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The plan of a rollout, as far as the watch depends on it."""

    site_label: str
    silence_s: float
    allowed: float  # share of devices that may be silent
    stratum_of: StratumOf


@dataclass(slots=True)
class _Strata:
    """The number of the stratum of each label set."""

    stratum_of: StratumOf
    keys: dict[tuple[str, ...], int] = field(default_factory=dict)
    by_label_set: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def numbers(self, fleet: Fleet, rows: Rows) -> npt.NDArray[np.int32]:
        known = len(self.by_label_set)
        if known < fleet.label_set_count:
            new = [
                self.keys.setdefault(self.stratum_of(fleet.label_set(number)), len(self.keys))
                for number in range(known, fleet.label_set_count)
            ]
            self.by_label_set = np.append(self.by_label_set, np.array(new, np.int32))
        found: npt.NDArray[np.int32] = self.by_label_set[fleet.label_ids[rows]]
        return found

    def site(self, number: int) -> str:
        return list(self.keys)[number][0]


class SiteWatch:
    """The devices at risk and the open groups of one rollout. Soft state: see ``SiteBets``."""

    def __init__(self, ledger: Ledger, watched: Watched) -> None:
        self._ledger = ledger
        self._watched = watched
        self._strata = _Strata(watched.stratum_of)
        self._observed_at = float("-inf")
        self._role = np.zeros(0, np.uint8)  # by row
        self._opened: dict[int, float] = {}  # stratum -> when its group was opened
        self._compared = np.zeros(0, np.bool_)  # by stratum: it has enough control

    def clear(self) -> None:
        """Forget all groups: nothing is in trial."""
        self._observed_at = float("-inf")
        self._role[:] = _NOT_AT_RISK
        self._opened.clear()

    def compare(self, bets: SiteBets, fleet: Fleet, rows: Rows, now: float) -> SiteComparison:
        """The comparison as evidence. ``rows`` are the eligible devices."""
        at_risk = rows[
            ~fleet.silent_longer(rows, now, self._dark_s(fleet)) & fleet.ever_observed(rows)
        ]
        standings = self._ledger.standings(at_risk)
        controls = int(np.count_nonzero(standings == DeviceStanding.NONE))
        canaries = int(np.count_nonzero(standings == DeviceStanding.TRIAL))
        return SiteComparison(
            e_value=e_value(log_evidence(bets.log_wealth)),
            groups=bets.groups,
            has_control=controls > 0 and has_control(canaries, controls),
        )

    def _dark_s(self, fleet: Fleet) -> float:
        return max(self._watched.silence_s, fleet.offline_after_s)

    def are_open(self, rows: Rows, fleet: Fleet) -> Mask:
        """True for each of ``rows``, in trial, that will be compared with a control of its site."""
        found = np.zeros(len(rows), np.bool_)
        within = rows < len(self._role)
        mine = rows[within]
        numbers = self._strata.numbers(fleet, mine)
        known = np.append(self._compared, np.zeros(len(self._strata.keys), np.bool_))
        found[within] = (self._role[mine] == _CANARY) & known[numbers]
        return found

    def observe(
        self, bets: SiteBets, fleet: Fleet, rows: Rows, now: float
    ) -> tuple[SiteBets, tuple[Outage, ...]] | None:
        """Look at the eligible ``rows``. The bets after the groups that close now, with outages.

        None if no group closes. The caller stores the result; another call without that is safe,
        because the devices of a closed group are at risk no more.
        """
        check_in_s = fleet.offline_after_s / 3
        if 0 <= now - self._observed_at < check_in_s / LOOKS_PER_CHECK_IN:
            return None
        self._observed_at = now
        if len(self._role) < len(fleet):
            self._role = longer(self._role, len(fleet))
        dark_s = self._dark_s(fleet)
        observed = _Observed(
            rows=rows,
            strata=self._strata.numbers(fleet, rows),
            dark=fleet.silent_longer(rows, now, dark_s),
            standings=self._ledger.standings(rows),
        )
        count = len(self._strata.keys)
        fresh = observed.dark & (self._role[rows] != _NOT_AT_RISK)
        for number in np.unique(observed.strata[fresh]).tolist():
            self._opened.setdefault(number, now)
        quiet_s = QUIET_CHECK_INS * check_in_s
        stirred = fresh & ~fleet.silent_since(rows, now - quiet_s - dark_s)
        restless = set(np.unique(observed.strata[stirred]).tolist())
        closing = [
            number
            for number, at in self._opened.items()
            if now - at >= MOST_CHECK_INS * check_in_s
            or (now - at >= quiet_s and number not in restless)
        ]
        groups = [self._group(number, observed) for number in closing]
        outages = [
            self._outage(number, group, observed, now)
            for number, group in zip(closing, groups, strict=True)
            if group.has_control and group.is_outage(self._watched.allowed)
        ]
        for number in closing:
            del self._opened[number]
        self._renew(observed, bets, fleet, count)
        if not any(group.dark_canaries + group.dark_controls for group in groups):
            return None
        wealth = grown(bets.log_wealth, groups)
        if wealth == bets.log_wealth and not outages:
            return None
        return SiteBets(log_wealth=wealth, groups=bets.groups + len(groups), at=now), (*outages,)

    def _renew(self, observed: "_Observed", bets: SiteBets, fleet: Fleet, count: int) -> None:
        """Set the devices at risk anew where no group is open, and add those that began."""
        rows = observed.rows
        at_risk = ~observed.dark & fleet.ever_observed(rows)
        control = at_risk & (observed.standings == DeviceStanding.NONE)
        canary = at_risk & (observed.standings == DeviceStanding.TRIAL)
        if bets.groups and canary.any():  # dark canaries of groups before a restart count no more
            began = self._ledger.began_between(rows, bets.at, None)
            canary &= began | ~fleet.silent_since(rows, fleet.listening_since)
        role = self._role[rows]
        is_open = np.isin(observed.strata, np.array(list(self._opened), np.int32))
        now_at_risk = np.where(canary, _CANARY, np.where(control, _CONTROL, _NOT_AT_RISK))
        role = np.where(is_open, np.where(canary, _CANARY, role), now_at_risk).astype(np.uint8)
        self._role[rows] = role
        canaries = np.bincount(observed.strata[role == _CANARY], minlength=count)
        controls = np.bincount(observed.strata[role == _CONTROL], minlength=count)
        self._compared = np.array(
            [
                control > 0 and has_control(canary, control)
                for canary, control in zip(canaries.tolist(), controls.tolist(), strict=True)
            ],
            np.bool_,
        )

    def _group(self, number: int, observed: "_Observed") -> Group:
        mine = observed.strata == number
        role = self._role[observed.rows]
        canary, control = mine & (role == _CANARY), mine & (role == _CONTROL)
        return Group(
            canaries=int(np.count_nonzero(canary)),
            controls=int(np.count_nonzero(control)),
            dark_canaries=int(np.count_nonzero(self._dark_canaries(number, observed))),
            dark_controls=int(np.count_nonzero(control & observed.dark)),
        )

    def _dark_canaries(self, number: int, observed: "_Observed") -> Mask:
        canary = (observed.strata == number) & (self._role[observed.rows] == _CANARY)
        found: Mask = canary & observed.dark & (observed.standings == DeviceStanding.TRIAL)
        return found

    def _outage(self, number: int, group: Group, observed: "_Observed", now: float) -> Outage:
        """The outage as a part: the devices of the site that began as its dark canaries did."""
        site, activations = self._strata.site(number), self._ledger.activations
        keys = activations.keys(observed.rows[self._dark_canaries(number, observed)])
        return Outage(
            since=activations.time(int(keys.min())) + _HALF_KEY_S,
            until=activations.time(int(keys.max())) + _HALF_KEY_S,
            key=self._watched.site_label if site else "",
            value=site,
            at=now,
            dark=group.dark_canaries,
            in_trial=group.canaries,
            dark_control=group.dark_controls,
            control=group.controls,
        )


@dataclass(frozen=True, slots=True)
class _Observed:
    """The eligible rows at one look."""

    rows: Rows
    strata: npt.NDArray[np.int32]
    dark: Mask
    standings: npt.NDArray[np.uint8]
