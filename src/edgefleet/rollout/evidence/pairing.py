"""Pairs of a canary and a control, and the bets on their differences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgefleet.protocol.device import Scores
from edgefleet.protocol.metric_kinds import ChangeMetric
from edgefleet.protocol.rollout import Difference, GateSpec
from edgefleet.rollout.evidence.sequential import Bet, e_value
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.limits import SCORES_WAITING

Pair = tuple[Scores, Scores]
"""The scores of a canary and those of its control."""


@dataclass(slots=True)
class Pairing:
    """Canaries and controls that wait for a pair.

    The device is the unit: each device counts once as canary and once as control. The k-th canary
    is paired with the control that reported last, or with the next control that reports.
    """

    _canaries: dict[int, Scores] = field(
        default_factory=dict
    )  # canaries without a pair, oldest first
    _controls: dict[int, Scores] = field(default_factory=dict)
    _paired: bytearray = field(default_factory=bytearray)  # one byte for each row

    def add_canary(self, row: int, scores: Scores) -> Pair | None:
        """Add the scores of a canary. Returns its pair. None if it waits or counted before."""
        if not self._fresh(row, self._canaries):
            return None
        if self._controls:
            other, control = self._controls.popitem()
            self._paired[row] = self._paired[other] = 1
            return scores, control
        if len(self._canaries) < SCORES_WAITING:
            self._canaries[row] = scores
        return None

    def add_control(self, row: int, scores: Scores) -> Pair | None:
        """Add the scores of a control. Returns its pair. None if it waits or counted before."""
        self._controls.pop(row, None)
        if not self._fresh(row, self._controls):
            return None
        if self._canaries:
            canary = next(iter(self._canaries))
            self._paired[row] = self._paired[canary] = 1
            return self._canaries.pop(canary), scores
        self._controls[row] = scores
        if len(self._controls) > SCORES_WAITING:
            del self._controls[next(iter(self._controls))]
        return None

    def _fresh(self, row: int, waiting: Mapping[int, Scores]) -> bool:
        reach(self._paired, row)
        return not self._paired[row] and row not in waiting


def bet_on(
    bets: dict[str, Bet], metrics: Iterable[ChangeMetric], pair: Pair, gate: GateSpec
) -> None:
    """Add the differences of a pair to ``bets``, which has a bet for each metric by its key."""
    ours, theirs = pair
    for metric in metrics:
        if metric.scored is None:
            continue
        mine, other = metric.scored(ours), metric.scored(theirs)
        if mine is not None and other is not None:
            place_bet(bets, metric, metric.worse_by(mine - other), gate)


def place_bet(
    bets: dict[str, Bet], metric: ChangeMetric, difference: float, gate: GateSpec, times: int = 1
) -> None:
    """Add one difference, ``times`` times. Positive is worse."""
    bet = bets.get(metric.key)
    if bet is None:
        bet = _new_bet(metric, gate)
    bets[metric.key] = bet.after(difference, times)


def stored(
    bets: Mapping[str, Bet], metrics: Iterable[ChangeMetric], *, model: str = "", release: str = ""
) -> list[StoredBet]:
    """The bets on ``metrics``, to be stored."""
    return [
        StoredBet(
            metric=metric.key,
            model=model,
            release=release,
            count=bet.count,
            total=bet.total,
            squares=bet.squares,
            logs=bet.logs,
        )
        for metric in metrics
        if (bet := bets.get(metric.key)) is not None
    ]


def continued(found: StoredBet, metric: ChangeMetric, gate: GateSpec) -> Bet:
    """The bet that was stored.

    New pairs are new evidence, so the wealth goes on from its stored value. Pairs since then are
    lost. When a hub restarts does not depend on them, so the wealth is a martingale as before.
    """
    return replace(
        _new_bet(metric, gate),
        count=found.count,
        total=found.total,
        squares=found.squares,
        logs=found.logs,
    )


def _new_bet(metric: ChangeMetric, gate: GateSpec) -> Bet:
    allowed = metric.allowed(gate)
    return Bet(allowed=allowed, bound=max(metric.cutoff, 2 * allowed))


def difference(
    metric: ChangeMetric, bet: Bet | None, *, log_share: float = 0.0, neighbour: str = ""
) -> Difference | None:
    """The result of a bet. None without one. ``log_share``: of its share of alpha."""
    if bet is None:
        return None
    return Difference(
        metric=metric.key,
        pairs=bet.count,
        mean=bet.mean,
        low=bet.interval[0],
        high=bet.interval[1],
        allowed=bet.allowed,
        e_value=e_value(bet.log_wealth + log_share),
        neighbour=neighbour,
    )


def reach(column: bytearray, row: int) -> None:
    """Grow the column for ``row``. No numpy view of the column may exist."""
    if row >= len(column):
        column.extend(bytes(max(1024, row + 1)))
