"""The events of a rollout. They carry all inputs of a step: cuts and judgements."""

from typing import ClassVar

from edgefleet.protocol.rollout import Approval, BakeEnd, Judgement, LimitPairs, Outage, TakenBack
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.bake import BakeState
from edgefleet.rollout.lifecycle.site_bets import SiteBets
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.lifecycle.table import RolloutSignal
from edgefleet.rollout.lifecycle.waves import Opening


class Started(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.STARTED
    previous: str | None
    opening: Opening


class Paused(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.PAUSED


class Resumed(Wire, frozen=True, kw_only=True):
    """``opening`` is set for a rollout that was halted before its first wave, and else None."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.RESUMED
    opening: Opening | None


class Advanced(Wire, frozen=True, kw_only=True):
    """The open wave passed. All ``openings`` but the last have the same cut as the open wave.

    A wave that was open by handfuls is the first of ``openings``: it opens whole.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.ADVANCED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool


class Extended(Wire, frozen=True, kw_only=True):
    """The evidence of the open wave is undecided, or too few of its devices are online.

    ``openings`` are as in ``Advanced``, with a few more devices. ``in_place``: they go to the open
    wave.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.EXTENDED
    judgement: Judgement
    openings: tuple[Opening, ...]
    in_place: bool


class Finished(Wire, frozen=True, kw_only=True):
    """The last wave with new devices passed. ``openings`` have the same cut as the open wave."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.FINISHED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool
    rows: int  # devices enrolled at this time
    bake: BakeState | None  # None: the plan has no bake


class BetsStored(Wire, frozen=True, kw_only=True):
    """The bets of canary against control, or the pairs of windows at switches, changed.

    They are stored at most once a minute.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.BETS_STORED
    bets: tuple[StoredBet, ...]
    limit_pairs: dict[str, tuple[LimitPairs, ...]]


class BakeJudged(Wire, frozen=True, kw_only=True):
    """A window of the bake was closed, or the gate took an exact test.

    ``note`` is set if an alert began or ended, ``judgement`` for an exact test.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.BAKE_JUDGED
    bake: BakeState
    note: str = ""
    judgement: Judgement | None = None


class BakeEnded(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.BAKE_ENDED
    end: BakeEnd


class Halted(Wire, frozen=True, kw_only=True):
    """``judgement``: of the open wave as the operator saw it. None if no wave is judged now."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.HALTED
    judgement: Judgement | None = None


class RevertRequested(Wire, frozen=True, kw_only=True):
    """``judgement``: as in Halted."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.REVERT_REQUESTED
    judgement: Judgement | None = None


class GateFailed(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.GATE_FAILED
    judgement: Judgement


class PartFailed(Wire, frozen=True, kw_only=True):
    """The release fails on the devices of ``part``, which alone give it back. No more start."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.PART_FAILED
    judgement: Judgement
    part: TakenBack


class ClassFailed(PartFailed, frozen=True, kw_only=True):
    """The same for a class of devices: the release goes on to the devices outside of it."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.CLASS_FAILED


class SitesCompared(Wire, frozen=True, kw_only=True):
    """Groups of devices that went dark are closed. ``outages`` are those of the site, if any."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.SITES_COMPARED
    bets: SiteBets
    outages: tuple[Outage, ...] = ()


class RefusedByDevices(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.REFUSED_BY_DEVICES
    judgement: Judgement


class WaitReasonChanged(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.WAIT_REASON_CHANGED
    judgement: Judgement


class Approved(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.APPROVED
    approval: Approval


class RevertCompleted(Wire, frozen=True, kw_only=True):
    """``left`` online devices still run the release at the end of the revert.

    ``stranded`` devices keep the release, because they have no previous one. ``kept`` devices keep
    it, because another rollout gives it to them.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.REVERT_COMPLETED
    left: int = 0
    stranded: int = 0
    kept: int = 0


Event = (
    Started | Paused | Resumed | Advanced | Extended | Finished | BetsStored | BakeJudged
    | BakeEnded | Halted | RevertRequested | GateFailed | PartFailed | ClassFailed
    | RefusedByDevices | Approved | SitesCompared | WaitReasonChanged | RevertCompleted
)  # fmt: skip
