"""One check-in: accept, admit, store, record, count telemetry, answer; always in this order.

The order is fixed by the values of this module, so all shells share it. A shell (the hub, the
simulator, the test fixtures) only performs the input and output that a ``Pending`` names:

    step = begin(engine, row, check_in, now)
    while isinstance(step, Pending):
        fresh = make_durable(step)  # if storing fails: abandon(engine, step)
        step = finish(engine, step, fresh, now)

An ``Answered`` exists only when every outcome that it acknowledges is durable and recorded. The
offer is decided last, because it depends on the reports.

``begin_batch`` and ``finish_batch`` run the same steps for many devices that send the same check-in
at one moment, as a hub does if its store commits their reports together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import numpy as np

from edgefleet.protocol.device import CheckIn, Facts, Offer, Outcome, OutcomeKind
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.rollout.active import Position
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Mask, Rows

_START: Final = OutcomeKind.TRIAL_STARTED  # bound once: the lookup takes 0.2 us in Python 3.11


class OutOfSequence(msgspec.Struct, frozen=True):
    """Refusal: the device has sent this number before. ``next_seq`` is the lowest new number.

    ``is_late``: it has not, but a later one. The check-in took longer than the next one of the same
    agent, which has sent everything again that was not answered. No agent waits for the answer.
    """

    next_seq: int
    is_late: bool = False


class Receipt(msgspec.Struct, frozen=True):
    """Ids of outcomes that the answer acknowledges.

    The outcomes in ``dropped`` concern no rollout of the device: the hub does not store them, and
    the device may forget them. A start that is not admitted is in neither list: the device asks
    again.
    """

    stored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


_NO_RECEIPT: Final = Receipt()


class Pending(msgspec.Struct, frozen=True):
    """The write that must be durable before the check-in continues: ``facts`` or ``to_store``.

    ``at`` is the time of receipt, stored with the outcomes. ``reserved`` contains the starts of
    ``to_store``: their places stay reserved until ``finish`` or ``abandon``.
    """

    row: int
    check_in: CheckIn
    at: float
    facts: Facts | None = None
    to_store: tuple[Outcome, ...] = ()
    reserved: tuple[Outcome, ...] = ()
    receipt: Receipt = _NO_RECEIPT  # valid once the check-in is answered
    waiting: tuple[tuple[Outcome, Position], ...] = ()  # to be admitted once ``facts`` are durable
    positions: Mapping[str, Position] = {}  # by the ids of ``to_store``, as at the arrival


class Answered(msgspec.Struct, frozen=True):
    """The part of a ``CheckInAnswer`` that the engine decides.

    ``offers`` has that of the oldest rollout first. ``wants_models`` asks for the full list of
    models, because the engine has other models of the device than the device itself; nothing is
    offered then.
    """

    offers: tuple[Offer, ...] = ()
    receipt: Receipt = _NO_RECEIPT
    wants_models: bool = False

    @property
    def offer(self) -> Offer | None:
        """The first offer, which is all that an agent with one model gets."""
        return self.offers[0] if self.offers else None

    @property
    def acked(self) -> tuple[str, ...]:
        """Ids of the outcomes that the device may forget."""
        return (*self.receipt.stored, *self.receipt.dropped)


Step: TypeAlias = Pending | Answered
_NOTHING: Final = Answered()
_WANTS_MODELS: Final = Answered(wants_models=True)


def begin(engine: Engine, row: int, check_in: CheckIn, now: float) -> Step | OutOfSequence:
    """Accept a check-in. A heartbeat is answered at once, because it needs no write."""
    fleet = engine.fleet
    if not fleet.accept_seq(row, check_in.seq):
        next_seq = fleet.last_seq(row) + 1
        if fleet.copies.is_of_last_run(row, check_in.run) and fleet.missed.consume(
            row, check_in.seq
        ):
            return OutOfSequence(next_seq, is_late=True)
        fleet.copies.refused(row, check_in.run, fleet.last_seen(row))
        return OutOfSequence(next_seq)
    if check_in.run or fleet.copies.is_copied(row):
        fleet.copies.accepted(row, check_in.run, now)
    if check_in.protocol <= ONE_MODEL:
        fleet.observe(
            row,
            now,
            model=check_in.model,
            release=check_in.release,
            phase=check_in.phase,
            protocol=check_in.protocol,
        )
    else:
        fleet.observe_models(row, now, check_in)
        if check_in.models or check_in.full:
            engine.note_given(row, check_in)
    fleet.serving.note(row, check_in.serving, now)
    outcomes, facts = check_in.outcomes, check_in.facts
    if not outcomes and facts is None:
        return _answer(engine, row, check_in, now, _NO_RECEIPT)
    waiting: list[tuple[Outcome, Position]] = []
    dropped: list[str] = []
    for outcome in outcomes:
        position = engine.intake.position(row, outcome)
        if position is not None:
            waiting.append((outcome, position))
        elif outcome.kind is not _START:
            dropped.append(outcome.id)
    receipt = Receipt(dropped=tuple(dropped))
    pending = Pending(row, check_in, now, facts=facts, receipt=receipt, waiting=tuple(waiting))
    return _admit(engine, pending, now) if facts is None else pending


def heartbeat(
    engine: Engine, row: int, now: float, *, seq: int, digest: int, protocol: int
) -> bool:
    """``begin`` of a check-in without any report, if all that it does is to note the device.

    True if it was accepted and the answer has nothing new. False if ``begin`` has to decide, which
    must be called then with the same check-in.
    """
    fleet = engine.fleet
    if not fleet.note_heartbeat(row, now, seq=seq, digest=digest, protocol=protocol):
        return False
    if engine.admission.has_offer(row, now):
        return False
    return fleet.accept_seq(row, seq)


def finish(engine: Engine, pending: Pending, fresh: Iterable[Outcome], now: float) -> Step:
    """Continue after ``pending`` became durable.

    ``fresh`` contains the outcomes of ``to_store`` that are new to the store. An outcome that a
    device reports again does not count again.
    """
    row = pending.row
    record, positions = engine.intake.record, pending.positions
    new = {
        outcome.id
        for outcome in fresh
        if record(row, outcome, pending.at, positions.get(outcome.id))
    }
    for outcome in pending.reserved:
        if outcome.id not in new:  # a recorded start has turned the place into a trial
            engine.admission.free(row, outcome)
    if pending.facts is not None:
        return _admit(engine, pending, now)
    return _answer(engine, row, pending.check_in, now, pending.receipt)


def abandon(engine: Engine, pending: Pending) -> None:
    """Free the places of outcomes that could not be stored. The check-in gets no answer."""
    for outcome in pending.reserved:
        engine.admission.free(pending.row, outcome)


def _admit(engine: Engine, pending: Pending, now: float) -> Step:
    row, check_in = pending.row, pending.check_in
    to_store: list[Outcome] = []
    reserved: list[Outcome] = []
    positions: dict[str, Position] = {}
    facts_changed = pending.facts is not None
    for outcome, position in _in_order(engine, pending.waiting):
        known = None if facts_changed or reserved else position
        if outcome.kind is _START:
            if not engine.admission.admit(row, outcome, now, known):
                continue
            reserved.append(outcome)
        if known is not None:
            positions[outcome.id] = known
        to_store.append(outcome)
    if not to_store:
        return _answer(engine, row, check_in, now, pending.receipt)
    ids = tuple(outcome.id for outcome in to_store)
    return Pending(
        row,
        check_in,
        now,
        to_store=tuple(to_store),
        reserved=tuple(reserved),
        positions=positions,
        receipt=Receipt(ids, pending.receipt.dropped),
    )


def _answer(engine: Engine, row: int, check_in: CheckIn, now: float, receipt: Receipt) -> Answered:
    engine.intake.add_figures(row, check_in, now)
    if check_in.protocol > ONE_MODEL and engine.fleet.models.digest_differs(row, check_in.digest):
        # An offer would rest on a list that is not the device's own, as after a restore.
        return _WANTS_MODELS if receipt is _NO_RECEIPT else Answered((), receipt, wants_models=True)
    offers = engine.admission.offers(row, now)
    if not offers and receipt is _NO_RECEIPT:
        return _NOTHING
    return Answered(offers, receipt)


def _in_order(
    engine: Engine, waiting: tuple[tuple[Outcome, Position], ...]
) -> Iterable[tuple[Outcome, Position]]:
    """The outcomes as they were sent, but of several starts that of the oldest rollout first.

    A device starts one release at a time, so the first start is the one that may be admitted.
    """
    if sum(outcome.kind is _START for outcome, _ in waiting) < 2:
        return waiting
    return sorted(waiting, key=lambda one: _place(engine, one[0]))


def _place(engine: Engine, outcome: Outcome) -> tuple[bool, tuple[float, str]]:
    """The sort key of an outcome: starts last, by the age of their rollouts."""
    starts = outcome.kind is _START
    return starts, engine.admission.age(outcome.rollout) if starts else (0.0, "")


# Batches.


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of a batch with the same stored and the same dropped outcomes."""

    rows: Rows
    to_store: tuple[Outcome, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def receipt(self) -> Receipt:
        """The receipt of each of the devices."""
        return Receipt(tuple(outcome.id for outcome in self.to_store), self.dropped)


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """``Pending`` of many devices: ``facts`` of all ``rows``, or ``to_store`` of each group."""

    rows: Rows
    check_in: CheckIn
    at: float
    facts: Facts | None = None
    to_store: tuple[Group, ...] = ()
    reserved: tuple[tuple[Rows, Outcome], ...] = ()
    groups: tuple[Group, ...] = ()  # all of ``rows``, with the receipts of the answers
    waiting: tuple[Mask, ...] = ()  # for each outcome, the rows that it concerns, before admission


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """Each answer with its devices. No row occurs twice."""

    parts: tuple[tuple[Answered, Rows], ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """The accepted check-ins of a batch, and those that were refused."""

    step: PendingBatch | AnsweredBatch
    refused: tuple[tuple[OutOfSequence, Rows], ...] = ()


BatchStep: TypeAlias = PendingBatch | AnsweredBatch


def begin_batch(engine: Engine, rows: Rows, check_in: CheckIn, now: float) -> Begun:
    """``begin`` for many devices. ``rows`` ascend; the lowest are admitted first."""
    fleet = engine.fleet
    accepted = fleet.accept_seqs(rows, check_in.seq)
    refused = tuple(
        (OutOfSequence(fleet.last_seq(row) + 1), np.array([row]))
        for row in rows[~accepted].tolist()
    )
    rows = rows[accepted]
    if not len(rows):
        return Begun(AnsweredBatch(), refused)
    if check_in.protocol <= ONE_MODEL:
        fleet.set_protocols(rows, check_in.protocol)
        fleet.observe_all(
            rows, now, model=check_in.model, release=check_in.release, phase=check_in.phase
        )
    else:
        fleet.observe_all_models(rows, now, check_in)
        if check_in.models or check_in.full:
            engine.note_all_given(rows, check_in)
    fleet.serving.note_all(rows, check_in.serving, now)
    concerning = tuple(engine.batch.concern(rows, outcome) for outcome in check_in.outcomes)
    if check_in.facts is None:
        return Begun(_admit_batch(engine, rows, check_in, concerning, now), refused)
    pending = PendingBatch(rows, check_in, now, facts=check_in.facts, waiting=concerning)
    return Begun(pending, refused)


def finish_batch(
    engine: Engine, pending: PendingBatch, fresh: Iterable[tuple[Rows, Outcome]], now: float
) -> BatchStep:
    """``finish`` for many devices. ``fresh`` has each outcome with the rows for which it is new."""
    for rows, outcome in fresh:
        engine.batch.record(rows, outcome, pending.at)
    abandon_batch(engine, pending)
    if pending.facts is not None:
        return _admit_batch(engine, pending.rows, pending.check_in, pending.waiting, now)
    return _answer_batch(engine, pending.rows, pending.check_in, pending.groups, now)


def abandon_batch(engine: Engine, pending: PendingBatch) -> None:
    """Free the places of outcomes that could not be stored."""
    for rows, outcome in pending.reserved:
        engine.batch.release(rows, outcome)


def _admit_batch(
    engine: Engine, rows: Rows, check_in: CheckIn, concerning: Sequence[Mask], now: float
) -> BatchStep:
    stored = _admitted(engine, rows, check_in.outcomes, concerning, now)
    groups = _groups(rows, check_in.outcomes, concerning, stored)
    to_store = tuple(group for group in groups if group.to_store)
    if not to_store:
        return _answer_batch(engine, rows, check_in, groups, now)
    reserved = tuple(
        (rows[mask], outcome)
        for outcome, mask in zip(check_in.outcomes, stored, strict=True)
        if outcome.kind is _START and mask.any()
    )
    return PendingBatch(rows, check_in, now, to_store=to_store, reserved=reserved, groups=groups)


def _admitted(
    engine: Engine,
    rows: Rows,
    outcomes: tuple[Outcome, ...],
    concerning: Sequence[Mask],
    now: float,
) -> tuple[Mask, ...]:
    """For each outcome, the rows for which it is to be stored."""
    starts = [place for place, outcome in enumerate(outcomes) if outcome.kind is _START]
    stored = list(concerning)
    if len(starts) == 1:
        place = starts[0]
        mask = concerning[place].copy()
        if mask.any():
            mask[mask] = engine.batch.admit(rows[mask], outcomes[place], now)
        stored[place] = mask
    elif starts:  # device by device, as each start may depend on the one before it
        starts.sort(key=lambda place: engine.admission.age(outcomes[place].rollout))
        for place in starts:
            stored[place] = concerning[place].copy()
        for at, row in enumerate(rows.tolist()):
            for place in starts:
                if concerning[place][at]:
                    stored[place][at] = engine.admission.admit(row, outcomes[place], now)
    return tuple(stored)


def _groups(
    rows: Rows,
    outcomes: tuple[Outcome, ...],
    concerning: Sequence[Mask],
    stored: Sequence[Mask],
) -> tuple[Group, ...]:
    """The rows, grouped by their stored and their dropped outcomes."""
    if all(kept.all() for kept in stored):
        return (Group(rows, outcomes),)
    groups: list[tuple[Rows, Group]] = [(np.arange(len(rows)), Group(rows))]
    for outcome, concerned, kept in zip(outcomes, concerning, stored, strict=True):
        drops = np.zeros(len(rows), np.bool_) if outcome.kind is _START else ~concerned
        split: list[tuple[Rows, Group]] = []
        for places, group in groups:
            to_store, dropped = (*group.to_store, outcome), (*group.dropped, outcome.id)
            for mask, part in (
                (kept[places], Group(rows, to_store, group.dropped)),
                (drops[places], Group(rows, group.to_store, dropped)),
                (~(kept | drops)[places], group),
            ):
                if mask.any():
                    split.append((places[mask], part))
        groups = split
    return tuple(Group(rows[places], part.to_store, part.dropped) for places, part in groups)


def _answer_batch(
    engine: Engine, rows: Rows, check_in: CheckIn, groups: tuple[Group, ...], now: float
) -> AnsweredBatch:
    engine.batch.figures(rows, check_in, now)
    unlike = np.zeros(len(rows), np.bool_)
    if check_in.protocol > ONE_MODEL:
        unlike = engine.fleet.models.all_digests_differ(rows, check_in.digest)
    answers: list[tuple[tuple[Offer, ...], bool, Rows]] = [((), True, rows[unlike])]
    if not unlike.all():
        known = engine.batch.answers(rows[~unlike], now)
        answers += [(offers, False, offered) for offers, offered in known]
    parts: list[tuple[Answered, Rows]] = []
    for offers, wants_models, told in answers:
        for group in groups:
            both = told
            if len(groups) > 1:
                both = np.intersect1d(told, group.rows, assume_unique=True)
            if len(both):
                parts.append((Answered(offers, group.receipt, wants_models), both))
    return AnsweredBatch(tuple(parts))
