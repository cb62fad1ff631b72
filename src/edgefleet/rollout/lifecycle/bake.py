"""The durable state of a bake: when it ends, which devices it holds back, and its bets."""

from collections.abc import Mapping

import msgspec

from edgefleet.protocol.rollout import BakeEnd
from edgefleet.protocol.wire import Wire


class WindowBets(Wire, frozen=True, kw_only=True):
    """The bets on one metric over windows of time: see ``evidence.windows``.

    They are stored with each window, so a restart of the hub continues them.
    """

    wealth: tuple[float, ...] = ()  # one for each stake; empty: no bet was placed yet
    strict: tuple[int, ...] = ()  # rows strictly flagged since the bets began, ascending
    devices: int = 0  # the most devices that reported in one window since then
    share: float | None = None  # of the devices flagged in the last window
    control: float | None = None  # the same of the control; None: too few devices


class BakeAlert(Wire, frozen=True, kw_only=True):
    """A finding that rolls nothing back by itself. It holds the bake until it clears."""

    metric: str
    text: str
    at: float
    clean: int = 0  # windows in succession within the limit since then


class BakeState(Wire, frozen=True, kw_only=True):
    """The bake of a completed rollout.

    ``holdback_from`` is hexadecimal: devices whose position is not below it keep the previous
    release until the bake ends, as its control. ``allowed`` is the share of the requests of a
    device that may be bad, by metric, and ``limit_us`` the duration above which a request is slow:
    both fixed when the bake begins.
    """

    until: float
    window_since: float  # when the open window began, also before a restart of the hub
    holdback_from: str | None = None
    holdback: int = 0  # devices held back when the bake began
    allowed: Mapping[str, float] = msgspec.field(default_factory=dict)
    limit_us: int = 0
    sampled_below: str | None = None  # only canaries at positions below count in windows; None: all
    windows: int = 0  # closed windows with enough requests
    bets: Mapping[str, WindowBets] = msgspec.field(default_factory=dict)
    alert: BakeAlert | None = None
    ended_at: float | None = None
    end: BakeEnd | None = None

    @property
    def is_open(self) -> bool:
        """True while a finding can roll the release back by itself."""
        return self.ended_at is None

    @property
    def is_watched(self) -> bool:
        """True while the release is watched: in the bake, and after it until the next release."""
        return self.is_open or self.end in (BakeEnd.PASSED, BakeEnd.BY_HAND)
