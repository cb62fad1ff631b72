"""Those who watch a run: every checker hears what happens and says what must not be."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from edgefleet.protocol.device import Offer, Outcome
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.truth import CrowdView

Tell = Callable[[str, str], None]
"""(checker, what must not be)"""

VIOLATIONS: Final = 50  # kept; more are counted only


class Violation(Wire, frozen=True, kw_only=True):
    """What must not be, and was."""

    checker: str
    at: float
    text: str


class Checker:
    """Base of all. Override what you want to hear; ``wrong`` says what must not be.

    ``engine`` is another one after each crash of the hub. Rows are those of its fleet, ascending;
    devices of one call did the same at the same moment.
    """

    name: ClassVar[str]

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        self.crowd = crowd
        self._tell = tell

    @property
    def engine(self) -> Engine:
        return self.crowd.engine

    def wrong(self, text: str) -> None:
        self._tell(self.name, text)

    def named(self, rows: Rows) -> str:
        """The first of these devices, and how many more there are."""
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        return f"{self.crowd.name(int(rows[0]))}{more}"

    # What there is to hear. Those below do nothing.

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        """It became durable, for the first time of each; the engine has not counted it yet."""

    def acknowledged(self, rows: Rows, outcomes: tuple[Outcome, ...], now: float) -> None:
        """The devices were told that these are durable."""

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        """The devices were told to run something."""

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        """A rollout was planned, or its state moved on, durably."""

    def activated(self, rows: Rows, release: str, action: str, now: float) -> None:
        """The devices serve the release now. ``action`` is install, revert or restore."""

    def ticked(self, now: float) -> None:
        """All gates have been looked at."""

    def ended(self, now: float) -> None:
        """Everything was healed, and had its time."""


class Witnesses:
    """All checkers, called only for what they override."""

    def __init__(self, kinds: Sequence[type[Checker]], crowd: CrowdView) -> None:
        self.violations: list[Violation] = []
        self.count = 0
        self.by_checker: Counter[str] = Counter()
        self._crowd = crowd
        checkers = [kind(crowd, self._wrong) for kind in kinds]
        self.stored = _those(checkers, "stored")
        self.acknowledged = _those(checkers, "acknowledged")
        self.offered = _those(checkers, "offered")
        self.changed = _those(checkers, "changed")
        self.activated = _those(checkers, "activated")
        self.ticked = _those(checkers, "ticked")
        self.ended = _those(checkers, "ended")

    def _wrong(self, checker: str, text: str) -> None:
        self.count += 1
        self.by_checker[checker] += 1
        if len(self.violations) < VIOLATIONS:
            said = Violation(checker=checker, at=self._crowd.now, text=text)
            self.violations.append(said)


def _those(checkers: Sequence[Checker], hook: str) -> tuple[Callable[..., Any], ...]:
    return tuple(
        getattr(checker, hook)
        for checker in checkers
        if getattr(type(checker), hook) is not getattr(Checker, hook)
    )
