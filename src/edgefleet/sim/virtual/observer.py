"""Base class of the invariant checkers, and the dispatch of a run's events to them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from edgefleet.agent.event import Event
from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.truth import RunView

Report = Callable[[str, str], None]
"""Called with the checker's name and the text of a violation."""

BAD: Final = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
"""A device reports that it does not run the release."""

TRIAL_ENDS: Final = frozenset(
    {
        OutcomeKind.CONFIRMED,
        OutcomeKind.TRIAL_FAILED,
        OutcomeKind.REVERTED,
        OutcomeKind.WITHDRAWN,
    }
)
"""Outcomes after which a device is no longer in trial."""

VIOLATIONS: Final = 50  # kept with their text; further ones are only counted


class Violation(Wire, frozen=True, kw_only=True):
    """A violated invariant."""

    checker: str
    at: float
    text: str


class Switches(NamedTuple):
    """The models of a device that are in trial, those that go back, and the trials just begun."""

    trials: frozenset[str]
    returns: frozenset[str]
    began: frozenset[str]


class Checker:
    """Base class. Override the events to observe, and report a violation with ``wrong``.

    ``engine`` is a new object after each crash of the hub. ``rows`` are rows of its fleet, in
    ascending order. All devices of one call did the same at the same time.
    """

    name: ClassVar[str]

    def __init__(self, run: RunView, report: Report) -> None:
        self.run = run
        self._report = report

    @property
    def engine(self) -> Engine:
        return self.run.engine

    def wrong(self, text: str) -> None:
        self._report(self.name, text)

    def named(self, rows: Rows) -> str:
        """The name of the first device, and the number of others."""
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        return f"{self.run.name(int(rows[0]))}{more}"

    # Events. The methods of the base class do nothing.

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        """A new outcome of each device became durable. The engine has not counted it yet."""

    def acknowledged(self, rows: Rows, outcomes: tuple[Outcome, ...], now: float) -> None:
        """The hub acknowledged the outcomes to the devices."""

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        """The hub offered a release to the devices."""

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        """A rollout was planned (``before`` is None), or its state changed, durably."""

    def stepped(self, rows: Rows, event: Event, now: float) -> None:
        """The agent cores of the devices are about to handle the event."""

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        """The devices serve the release from now on. ``action`` is install, revert or restore."""

    def confirmed(self, rows: Rows, model: str, release: str, now: float) -> None:
        """The release became the confirmed one of the model on the devices, by their pointer."""

    def dropped(self, rows: Rows, model: str, now: float, *, on_trial: bool) -> None:
        """The devices no longer serve the model, whose release was ``on_trial`` or confirmed."""

    def switching(self, rows: Rows, switches: Switches, now: float) -> None:
        """Several models of each device are in trial or go back."""

    def listed(self, rows: Rows, now: float, *, full: bool, wanted: bool) -> None:
        """The devices sent the ``full`` list of their models, or the hub ``wanted`` to have it."""

    def ticked(self, now: float) -> None:
        """The hub has evaluated all gates."""

    def ended(self, now: float) -> None:
        """The run is over: all faults are healed, and the devices had time to check in."""


class Witnesses:
    """All checkers. Each is called only for the events that it overrides."""

    def __init__(self, kinds: Sequence[type[Checker]], run: RunView) -> None:
        self.violations: list[Violation] = []
        self.count = 0
        self.by_checker: Counter[str] = Counter()
        self._run = run
        self.checkers = checkers = [kind(run, self._wrong) for kind in kinds]
        self.stored = _overriding(checkers, "stored")
        self.acknowledged = _overriding(checkers, "acknowledged")
        self.offered = _overriding(checkers, "offered")
        self.changed = _overriding(checkers, "changed")
        self.stepped = _overriding(checkers, "stepped")
        self.activated = _overriding(checkers, "activated")
        self.confirmed = _overriding(checkers, "confirmed")
        self.dropped = _overriding(checkers, "dropped")
        self.switching = _overriding(checkers, "switching")
        self.listed = _overriding(checkers, "listed")
        self.ticked = _overriding(checkers, "ticked")
        self.ended = _overriding(checkers, "ended")

    def _wrong(self, checker: str, text: str) -> None:
        self.count += 1
        self.by_checker[checker] += 1
        if len(self.violations) < VIOLATIONS:
            violation = Violation(checker=checker, at=self._run.now, text=text)
            self.violations.append(violation)


def _overriding(checkers: Sequence[Checker], hook: str) -> tuple[Callable[..., Any], ...]:
    return tuple(
        getattr(checker, hook)
        for checker in checkers
        if getattr(type(checker), hook) is not getattr(Checker, hook)
    )
