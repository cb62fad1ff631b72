"""Every acknowledged outcome is durable."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import Checker


class Durable(Checker):
    """Compares each acknowledgement with the store."""

    name: ClassVar[str] = "durable"

    def acknowledged(self, rows: Rows, outcomes: tuple[Outcome, ...], now: float) -> None:
        for outcome in outcomes:
            lost = rows[~self.run.store.has(rows, outcome)]
            if len(lost):
                self.wrong(f"{self.named(lost)}: {outcome.id} is acknowledged but not stored")
