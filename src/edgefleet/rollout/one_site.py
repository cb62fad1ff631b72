"""Failed judgements that rest on one site: without its devices, the gate does not fail.

A power cut, a backend of the site or a bad batch of hardware affects one site. Two kinds of
judgement are asked whether they rest on one. In both, the gate judges once more without the devices
of the site with most failures, which takes failures away and adds none.

* The site stands out: it has more failures than chance explains if it is like the others.
* Two or more devices of the site are silent, and too few devices have not begun to tell whether it
  is the site that is dark.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet.protocol.metrics import ERRORS, SILENCE
from edgefleet.protocol.rollout import Evidence, Judgement, OneSite, Part, Rollback, Verdict
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.census import find_boundary
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.evidence.strata import Site, exceeds_chance
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.serving_failed import serving_failed

_ASKED: Final = frozenset({ERRORS.reason, SILENCE.reason, gate.LATE_FAILURES})
_DARK_TOGETHER: Final = 2


@dataclass(frozen=True, slots=True)
class _Failures:
    """The devices that began and count, ascending, with their sites and those that are bad."""

    rows: Rows
    sites: tuple[str, ...]
    site: Rows  # of each row: its place in ``sites``
    bad: Mask
    silent: Rows
    failing: Rows  # devices on which serving fails since they confirmed


def name_site(
    active: ActiveRollout,
    fleet: Fleet,
    judgement: Judgement,
    silent: Rows,
    judge_again: Callable[[Evidence], Judgement],
) -> Judgement:
    """The judgement, with the site on which it rests. Unchanged if it rests on no single site.

    ``silent`` are the silent devices that count, ascending.
    """
    if judgement.verdict is not Verdict.FAIL or judgement.reason not in _ASKED:
        return judgement
    if judgement.reason == gate.LATE_FAILURES and judgement.evidence.late.episode_since is not None:
        return judgement  # it names a smaller part: the devices of an episode
    observed = _failures(active, fleet, silent, serving_failed(active, fleet, judgement.at))
    if len(observed.sites) < 2:
        return judgement
    bad = np.bincount(observed.site[observed.bad], minlength=len(observed.sites))
    worst = int(bad.argmax())
    if not observed.sites[worst] or not _is_asked(observed, worst, judgement.evidence):
        return judgement
    mine = observed.site == worst
    site = OneSite(
        key=active.state.spec.site_label,
        value=observed.sites[worst],
        bad=int(bad[worst]),
        begun=int(np.count_nonzero(mine)),
        bad_elsewhere=int(bad.sum() - bad[worst]),
        begun_elsewhere=int(np.count_nonzero(~mine)),
    )
    rest = _without(active, judgement.evidence, observed, worst, site)
    if judge_again(rest).verdict is Verdict.FAIL:
        return judgement
    is_part = active.state.spec.gate.rollback is Rollback.PART
    return replace(
        judgement,
        reason=gate.ONE_SITE if is_part else judgement.reason,
        text=f"{judgement.text} {one_site_text(site)}",
        evidence=replace(judgement.evidence, one_site=site),
    )


def one_site_text(site: OneSite) -> str:
    """The site as a sentence."""
    return (
        f"This rests on one site: {site.bad} of {site.begun} devices of {site.key} {site.value} "
        f"failed or are silent, {site.bad_elsewhere} of {site.begun_elsewhere} elsewhere."
    )


def _failures(active: ActiveRollout, fleet: Fleet, silent: Rows, failing: Rows) -> _Failures:
    ledger, key = active.ledger, active.state.spec.site_label
    rows = ledger.begun_rows
    standings = ledger.standings(rows)
    counts = (standings != DeviceStanding.REVERTED) & ~active.set_aside.parts.all_have(rows)
    rows, standings = rows[counts], standings[counts]
    labels, places = np.unique(fleet.label_ids[rows], return_inverse=True)
    of_label = [fleet.label_set(number).get(key, "") for number in labels.tolist()]
    sites = tuple(sorted(set(of_label)))
    numbers = np.array([sites.index(site) for site in of_label], np.int64)
    bad = (standings == DeviceStanding.FAILED) | np.isin(rows, [*silent, *failing])
    return _Failures(rows, sites, numbers[places], bad, silent, failing)


def _is_asked(observed: _Failures, worst: int, evidence: Evidence) -> bool:
    """True if the failures may be those of one site."""
    mine = observed.site == worst
    site = Site(int(np.count_nonzero(mine & observed.bad)), int(np.count_nonzero(mine)))
    every = Site(int(np.count_nonzero(observed.bad)), len(observed.rows))
    if exceeds_chance(site, every, len(observed.sites)):
        return True
    dark = int(np.count_nonzero(np.isin(observed.rows[mine], observed.silent, assume_unique=True)))
    return dark >= _DARK_TOGETHER and not evidence.sites.has_control


def _without(
    active: ActiveRollout, evidence: Evidence, observed: _Failures, worst: int, site: OneSite
) -> Evidence:
    """The evidence without the devices of the site that began, for the tests of all devices."""
    mine = observed.rows[observed.site == worst]
    standings = active.ledger.standings(mine)
    silent = np.intersect1d(mine, observed.silent, assume_unique=True)
    others = np.setdiff1d(observed.silent, mine, assume_unique=True)
    failing = np.setdiff1d(observed.failing, mine, assume_unique=True)
    healthy = standings == DeviceStanding.HEALTHY
    healthy &= ~np.isin(mine, observed.failing, assume_unique=True)
    trial = int(np.count_nonzero(standings == DeviceStanding.TRIAL)) - len(silent)
    limit, part = active.state.failures_allowed, Part(key=site.key, value=site.value)
    late = active.set_aside.late_without(limit, part)
    return replace(
        evidence,
        failed=evidence.failed - site.bad,
        silent=evidence.silent - len(silent),
        in_trial=max(0, evidence.in_trial - trial),
        serving_failed=len(failing),
        healthy=evidence.healthy - int(np.count_nonzero(healthy)),
        late=late.failures(others),
        classes=(),
        boundary=find_boundary(active, others, failing, without=mine, damaged=evidence.damaged),
    )
