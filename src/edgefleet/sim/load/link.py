"""A device's virtual network link: outages, loss, duplicates and transfer times."""

from dataclasses import dataclass, field
from math import inf

from edgefleet.sim.load.draws import Draws


@dataclass(frozen=True, slots=True)
class Outages:
    """Times when a link is down: the ``windows`` (from, until), and the end of each period.

    A flapping link alternates: up for ``up_s``, down for ``down_s``. ``shift_s`` is its position in
    the period at time 0.
    """

    windows: tuple[tuple[float, float], ...] = ()
    up_s: float = inf
    down_s: float = 0.0
    shift_s: float = 0.0

    def down(self, now: float) -> bool:
        if self.down_s > 0 and (now + self.shift_s) % (self.up_s + self.down_s) >= self.up_s:
            return True
        return any(start <= now < end for start, end in self.windows)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """Properties of a link in each direction. ``loss`` and ``doubling`` are shares of messages."""

    latency_s: float = 0.02
    bandwidth_bytes_s: float = 2e6
    loss: float = 0.0
    doubling: float = 0.0
    outages: Outages = field(default_factory=Outages)


class VirtualLink:
    """The link of one device."""

    __slots__ = ("_draws", "facts")

    def __init__(self, facts: LinkFacts, draws: Draws) -> None:
        self.facts = facts
        self._draws = draws

    def up(self, now: float) -> bool:
        return not self.facts.outages.down(now)

    def arrivals(self, now: float, size_bytes: int) -> tuple[float, ...]:
        """Arrival times of a message sent at ``now``: none, one, or two for a duplicate."""
        facts = self.facts
        if facts.outages.down(now) or (facts.loss and self._draws.happens(facts.loss)):
            return ()
        times = [now + self._transit_s(size_bytes)]
        if facts.doubling and self._draws.happens(facts.doubling):
            times.append(now + self._transit_s(size_bytes))
        return tuple(at for at in times if not facts.outages.down(at))

    def _transit_s(self, size_bytes: int) -> float:
        jitter = 0.5 + self._draws.uniform()
        return self.facts.latency_s * jitter + size_bytes / self.facts.bandwidth_bytes_s
