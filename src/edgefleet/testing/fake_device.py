"""A toy device: what it serves, what it tries, and what it still has to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Phase, Reason
from edgefleet.protocol.version import PROTOCOL, starts_by_itself
from edgefleet.testing.behaviour import Fate

_TRIAL_ENDS: Final = {Fate.FAILS: Reason.ERRORS, Fate.CRASHES: Reason.CRASH}


@dataclass(frozen=True, slots=True)
class Attempt:
    """An offer that is being followed, and when its present stage ends."""

    offer: Offer
    until: float


@dataclass(slots=True)
class FakeDevice:
    """One device of a ``FakeFleet``. ``fates`` say what becomes of it with a release, by name.

    It stages what it is offered for ``fetch_s``, asks to start its trial and starts when the engine
    lets it (by itself, if its ``protocol`` is the one before), confirms or fails after the offer's
    ``confirm_after_s``, and goes back when it is told.
    """

    name: str
    profile: str = "generic_x86"
    labels: Mapping[str, str] = field(default_factory=dict)
    fates: Mapping[str, Fate] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("onnx",)
    memory_mib: int = 1024
    protocol: int = PROTOCOL  # that its agent speaks
    fetch_s: float = 5.0
    offline: bool = False
    running: str | None = None
    slot: str | None = None  # what the other slot holds
    staging: Attempt | None = None
    asking: Offer | None = None  # staged; waits to be let start
    trial: Attempt | None = None
    window: str | None = None  # the release of the requests that it spoke of last
    dead: bool = False
    spool: list[Outcome] = field(default_factory=list)
    seq: int = 0  # of its last check-in

    @property
    def phase(self) -> Phase:
        if self.trial:
            return Phase.TRIAL
        if self.asking:
            return Phase.STAGED
        return Phase.FETCHING if self.staging else Phase.IDLE

    @property
    def wakes_at(self) -> float | None:
        """When it has something to do by itself."""
        attempt = self.trial or self.staging
        return None if attempt is None else attempt.until

    def live(self, now: float, fate: Fate) -> None:
        """Do what is due. ``fate`` is that of the release that is staged or on trial."""
        if self.staging and now >= self.staging.until:
            offer, self.staging = self.staging.offer, None
            self._staged(offer, fate, now)
        elif self.trial and now >= self.trial.until:
            offer, self.trial = self.trial.offer, None
            if fate in _TRIAL_ENDS:
                self._swap()
                self._say(offer, OutcomeKind.TRIAL_FAILED, now, _TRIAL_ENDS[fate])
            else:
                self._say(offer, OutcomeKind.CONFIRMED, now)

    def acknowledged(self, outcome_id: str, now: float, fate: Fate) -> None:
        """The hub has the outcome. A start that is acknowledged is granted."""
        outcome = next(one for one in self.spool if one.id == outcome_id)
        self.spool.remove(outcome)
        if outcome.kind is OutcomeKind.TRIAL_STARTED and self.asking is not None:
            offer, self.asking = self.asking, None
            self._start(offer, fate, now)

    def told(self, offer: Offer | None, now: float) -> None:
        """The answer to a check-in: what it should run, or None to keep what it has."""
        if self.asking and (offer is None or offer.release != self.asking.release):
            self._withdraw(self.asking)
        if self.staging and (offer is None or offer != self.staging.offer):
            self.staging = None
        if offer is None:
            return
        if offer.action == "revert":
            self._go_back(offer, now)
        elif not (self.trial or self.asking or self.staging):
            self.staging = Attempt(offer, now + self.fetch_s)

    def _staged(self, offer: Offer, fate: Fate, now: float) -> None:
        match fate:
            case Fate.REFUSES:
                self._say(offer, OutcomeKind.REFUSED, now, Reason.GOLDEN)
            case Fate.DEFERS:
                self._say(offer, OutcomeKind.DEFERRED, now, Reason.DISK_FULL)
            case Fate.HEALTHY | Fate.FAILS | Fate.CRASHES | Fate.SILENT:
                self._say(offer, OutcomeKind.TRIAL_STARTED, now)
                if starts_by_itself(self.protocol):
                    self._start(offer, fate, now)
                else:
                    self.asking = offer

    def _start(self, offer: Offer, fate: Fate, now: float) -> None:
        self.slot, self.running = self.running, offer.release
        self.trial = Attempt(offer, now + offer.confirm_after_s)
        self.dead = fate is Fate.SILENT

    def _withdraw(self, offer: Offer) -> None:
        self.asking = None
        self.spool = [
            said
            for said in self.spool
            if (said.kind, said.rollout) != (OutcomeKind.TRIAL_STARTED, offer.rollout)
        ]

    def _go_back(self, offer: Offer, now: float) -> None:
        self.trial = None
        if self.running != offer.release:
            self.slot, self.running = self.running, offer.release
        self._say(offer, OutcomeKind.REVERTED, now, Reason.RECALLED)

    def _swap(self) -> None:
        self.running, self.slot = self.slot, self.running

    def _say(self, offer: Offer, kind: OutcomeKind, now: float, reason: str = "") -> None:
        said = Outcome(
            id=f"{self.name}-{offer.rollout}-{kind}"[:64],
            rollout=offer.rollout,
            release=offer.release,
            kind=kind,
            at=now,
            reason=reason,
        )
        self.spool.append(said)
