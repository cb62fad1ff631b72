"""A fake device: its slots, its attempt, and its outcomes that are not acknowledged yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgefleet.protocol.device import (
    ModelReport,
    Offer,
    Outcome,
    OutcomeKind,
    Phase,
    Reason,
    WrongBytes,
)
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.testing.behaviour import Fate
from edgefleet.testing.limits import REQUESTS_PER_S
from edgefleet.testing.release import ARTIFACT_SHA256

_WRONG_BYTES: Final = WrongBytes(expected=ARTIFACT_SHA256, found="f" * 64)
_TRIAL_ENDS: Final = {Fate.FAILS: Reason.ERRORS, Fate.CRASHES: Reason.CRASH}


@dataclass(frozen=True, slots=True)
class Attempt:
    """An offer in progress. ``until`` is the virtual time at which its current stage ends."""

    offer: Offer
    until: float


@dataclass(slots=True)
class FakeDevice:
    """One device of a ``FakeFleet``. ``fates`` maps release names to fates.

    The device downloads an offered release for ``fetch_s``, asks to start a trial, and starts after
    the engine admits it. The trial ends after the offer's ``confirm_after_s``. The device rolls
    back when the hub offers a revert.

    ``beside`` are other models on the device, which it reports and never changes. An agent with one
    model reports the first of them until it runs a release of its own.

    ``offline`` may be a function of the time. An offline device does nothing. ``requests_s`` is the
    number of requests that it serves in a second. At 0 it reports no telemetry. With
    ``answers_lost`` its check-ins reach the hub, but no answer comes back.
    """

    name: str
    profile: str = "generic_x86"
    labels: Mapping[str, str] = field(default_factory=dict)
    fates: Mapping[str, Fate] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("onnx",)
    memory_mib: int = 1024  # of the machine
    models_memory_mib: int = 0  # for all models together. 0: not limited
    versions: tuple[tuple[str, str], ...] = ()  # of the runtimes. Empty: not reported
    comparisons: tuple[str, ...] = ()  # of golden sets, besides that of class scores
    datatypes: tuple[str, ...] = ()  # of tensors. Empty: the agent is from before BF16
    protocol: int = ONE_MODEL  # the protocol version of the agent
    fetch_s: float = 5.0
    beside: tuple[ModelReport, ...] = ()
    requests_s: float = REQUESTS_PER_S
    offline: bool | Callable[[float], bool] = False
    answers_lost: bool = False
    row: int = -1  # set at enrolment
    running: str | None = None
    slot: str | None = None  # the release in the other slot
    staging: Attempt | None = None
    asking: Offer | None = None  # staged; waits for admission
    trial: Attempt | None = None
    window: str | None = None  # the release of the last reported requests
    dead: bool = False  # never checks in
    disk_fault: str = ""  # why it defers each release, a code of base.errors
    deferred: Offer | None = None  # the last deferred offer
    spool: list[Outcome] = field(default_factory=list)
    seq: int = 0  # number of the last check-in

    @property
    def phase(self) -> Phase:
        if self.trial:
            return Phase.TRIAL
        if self.asking:
            return Phase.STAGED
        return Phase.FETCHING if self.staging else Phase.IDLE

    @property
    def wakes_at(self) -> float | None:
        """The end of the current stage, in seconds of virtual time.

        None if the device waits for its next check-in: it is idle, or it has deferred the offer.
        """
        if self.trial:
            return self.trial.until
        if self.staging and self.staging.offer != self.deferred:
            return self.staging.until
        return None

    def is_offline(self, now: float) -> bool:
        return self.offline(now) if callable(self.offline) else self.offline

    def live(self, now: float, fate: Fate) -> None:
        """Do what is due. ``fate`` is the fate of the release that is staged or in trial."""
        if self.staging and now >= self.staging.until:
            offer, self.staging = self.staging.offer, None
            self._staged(offer, fate, now)
        elif self.trial and now >= self.trial.until:
            offer, self.trial = self.trial.offer, None
            if fate in _TRIAL_ENDS:
                self._swap()
                self._report(offer, OutcomeKind.TRIAL_FAILED, now, _TRIAL_ENDS[fate])
            else:
                self._report(offer, OutcomeKind.CONFIRMED, now)

    def acknowledged(self, outcome_id: str, now: float, fate: Fate) -> None:
        """Remove an acknowledged outcome. An acknowledged start is admitted."""
        outcome = next(one for one in self.spool if one.id == outcome_id)
        self.spool.remove(outcome)
        if outcome.kind is OutcomeKind.TRIAL_STARTED and self.asking is not None:
            offer, self.asking = self.asking, None
            self._start(offer, fate, now)

    def receive(self, offer: Offer | None, now: float) -> None:
        """Follow the answer to a check-in. None: the device keeps its release."""
        if self.asking and (offer is None or offer.release != self.asking.release):
            self._withdraw(self.asking)
        if self.staging and (offer is None or offer != self.staging.offer):
            self.staging = None
        if offer is None:
            return
        if offer.action == "revert":
            self._roll_back(offer, now)
        elif not (self.trial or self.asking or self.staging):
            self.staging = Attempt(offer, now + self.fetch_s)

    def _staged(self, offer: Offer, fate: Fate, now: float) -> None:
        if self.disk_fault:
            self.deferred = offer
            self._report(offer, OutcomeKind.DEFERRED, now, self.disk_fault)
            return
        match fate:
            case Fate.REFUSES:
                self._report(offer, OutcomeKind.REFUSED, now, Reason.GOLDEN)
            case Fate.DIFFERS if offer.shadow is not None:
                self._report(offer, OutcomeKind.REFUSED, now, Reason.ANSWERS)
            case Fate.DEFERS:
                self.deferred = offer
                self._report(offer, OutcomeKind.DEFERRED, now, Reason.DISK_FULL)
            case Fate.DAMAGED:
                self.deferred = offer
                self._report(offer, OutcomeKind.DEFERRED, now, Reason.TRANSFER, _WRONG_BYTES)
            case Fate.HEALTHY | Fate.FAILS | Fate.CRASHES | Fate.SILENT | Fate.DIFFERS:
                self._report(offer, OutcomeKind.TRIAL_STARTED, now)
                self.asking = offer

    def _start(self, offer: Offer, fate: Fate, now: float) -> None:
        self.slot, self.running = self.running, offer.release
        self.trial = Attempt(offer, now + offer.confirm_after_s)
        self.dead = fate is Fate.SILENT

    def _withdraw(self, offer: Offer) -> None:
        self.asking = None
        self.spool = [
            outcome
            for outcome in self.spool
            if (outcome.kind, outcome.rollout) != (OutcomeKind.TRIAL_STARTED, offer.rollout)
        ]

    def _roll_back(self, offer: Offer, now: float) -> None:
        self.trial = None
        if self.running != offer.release:
            self.slot, self.running = self.running, offer.release
        self._report(offer, OutcomeKind.REVERTED, now, Reason.RECALLED)

    def _swap(self) -> None:
        self.running, self.slot = self.slot, self.running

    def _report(
        self,
        offer: Offer,
        kind: OutcomeKind,
        now: float,
        reason: str = "",
        wrong_bytes: WrongBytes | None = None,
    ) -> None:
        outcome = Outcome(
            id=f"{self.name}-{offer.rollout}-{kind}"[:64],
            rollout=offer.rollout,
            release=offer.release,
            kind=kind,
            at=now,
            reason=reason,
            wrong_bytes=wrong_bytes,
        )
        self.spool.append(outcome)
