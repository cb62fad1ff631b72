"""The facts about earlier releases of a model that are known when a rollout is planned."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from edgefleet.protocol.rollout import Baseline, Cohort, History, RolloutSpec, Status
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.history import lifted
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.limits import HISTORY_ROLLOUTS


@dataclass(frozen=True, slots=True)
class Earlier:
    """The history of failures and the figures of the previous release. None: not known."""

    history: History | None = None
    baseline: Baseline | None = None


def find_earlier(
    spec: RolloutSpec, rollouts: Iterable[ActiveRollout], rows: Rows, previous: str | None
) -> Earlier:
    """The knowledge for ``spec`` over ``rows``. ``rollouts`` are all, newest first.

    The cost depends on the rollouts that are kept, not on their outcomes.
    """
    stood = [
        one
        for one in rollouts
        if one.model == spec.model
        and one.state.status is Status.COMPLETED
        and not one.state.taken_back
        and one.state.spec.release != spec.release
        and bool(one.scope.all_eligible(rows).any())
    ]
    figures = (_figures(one) for one in stood if one.state.spec.release == previous)
    known = next((one for one in figures if one.requests), None)
    return Earlier(
        history=_history(spec, tuple(islice(stood, HISTORY_ROLLOUTS))),
        baseline=None
        if known is None or previous is None
        else Baseline(release=previous, figures=known),
    )


def _history(spec: RolloutSpec, stood: tuple[ActiveRollout, ...]) -> History | None:
    bad = size = 0
    for one in stood:
        failed = one.ledger.count(DeviceStanding.FAILED) + one.ledger.count(DeviceStanding.REFUSED)
        bad += failed
        size += failed + one.ledger.count(DeviceStanding.HEALTHY)
    limit = spec.gate.max_error_rate
    allowed = lifted(bad, size, limit, alphas.HISTORY.alpha(spec.gate))
    if allowed <= limit:
        return None
    names = tuple(one.state.id for one in stood)
    return History(bad=bad, size=size, rollouts=names, allowed=allowed)


def _figures(active: ActiveRollout) -> Cohort:
    """The figures of a release in its own rollout, at the last verdict that had some."""
    judged = (wave.judgement for wave in reversed(active.state.waves) if wave.judgement is not None)
    return next((one.evidence.canary for one in judged if one.evidence.canary.requests), Cohort())
