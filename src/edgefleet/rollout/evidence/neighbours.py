"""The other models on the devices of a rollout: whether its release makes them slow or failing.

A canary is a device on which another model served before and after the switch to the release of the
rollout. The score of that model compares these two windows. A control is a device without the
release, whose score of the same model and release spans no switch. So the release of the other
model is the same in all four windows of a pair, and a bad release of that model, or its own trial,
cannot be attributed to this rollout.

Each release of each other model has a series of its own. The k-th series that has a pair gets the
share 6 / (pi k)^2 of the alpha of the metric, so any number of neighbours costs one share of alpha.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from edgefleet.protocol.device import Switch, Telemetry
from edgefleet.protocol.metric_kinds import ChangeMetric
from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import Difference, GateSpec
from edgefleet.rollout.evidence.pairing import Pairing, bet_on, continued, difference, stored
from edgefleet.rollout.evidence.sequential import Bet, share_of
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.limits import NEIGHBOURS

_METRICS: Final = tuple(metric for metric in CHANGES if metric.of_neighbours)


@dataclass(slots=True)
class Neighbours:
    """The pairs of each release of each other model, and the bets on their differences."""

    _pairings: dict[tuple[str, str], Pairing] = field(default_factory=dict)
    bets: dict[tuple[str, str], dict[str, Bet]] = field(
        default_factory=dict
    )  # in the order of the first pairs

    def add(self, row: int, telemetry: Telemetry, gate: GateSpec, switched: Switch | None) -> None:
        """Add figures of another model of a device.

        ``switched`` is the switch to the release of the rollout for a device that took it, None for
        a device that did not. Scores across another switch count for neither.
        """
        scores = telemetry.scores
        if telemetry.model is None or scores is None or scores.switched != switched:
            return
        if not scores.from_release == scores.to_release == telemetry.release:
            return
        key = telemetry.model, telemetry.release
        pairing = self._pairings.get(key)
        if pairing is None:
            if len(self._pairings) >= NEIGHBOURS:
                return
            pairing = self._pairings[key] = Pairing()
        if switched is None:
            pair = pairing.add_control(row, scores)
        else:
            pair = pairing.add_canary(row, scores)
        if pair is not None:
            bet_on(self.bets.setdefault(key, {}), _METRICS, pair, gate)

    def stored(self) -> list[StoredBet]:
        """The bets, to be stored, in the order of the first pairs."""
        return [
            one
            for (model, release), bets in self.bets.items()
            for one in stored(bets, _METRICS, model=model, release=release)
        ]

    def resume(self, found: StoredBet, metric: ChangeMetric, gate: GateSpec) -> None:
        """Continue a stored bet."""
        bets = self.bets.setdefault((found.model, found.release), {})
        bets[metric.key] = continued(found, metric, gate)

    def difference(self, metric: ChangeMetric) -> Difference | None:
        """The result for the neighbour with the most evidence. None without pairs."""
        best: Difference | None = None
        for number, ((model, release), bets) in enumerate(self.bets.items(), start=1):
            found = difference(
                metric,
                bets.get(metric.key),
                log_share=math.log(share_of(number)),
                neighbour=f"{model} {release}",
            )
            if found is not None and (best is None or found.e_value > best.e_value):
                best = found
        return best
