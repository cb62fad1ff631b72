"""The durable state of a bet on the differences between canary and control."""

from edgefleet.protocol.wire import Wire


class StoredBet(Wire, frozen=True, kw_only=True):
    """The sums of one bet, as ``evidence.sequential.Bet`` has them.

    ``model`` and ``release`` name a neighbour on the devices. They are empty for the release of the
    rollout itself.
    """

    metric: str
    model: str = ""
    release: str = ""
    count: int
    total: int
    squares: int
    logs: tuple[int, ...]
