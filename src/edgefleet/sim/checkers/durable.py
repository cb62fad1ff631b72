"""Acknowledged means durable."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome
from edgefleet.sim.witness import Checker


class Durable(Checker):
    """What a device is told to forget is in the store."""

    name: ClassVar[str] = "durable"

    def acknowledged(self, row: int, outcomes: tuple[Outcome, ...], now: float) -> None:
        for outcome in outcomes:
            if not self.crowd.store.has(row, outcome):
                self.wrong(f"{self.crowd.name(row)}: {outcome.id} was acknowledged, not stored")
