"""Labelled accuracy: the release against the previous one, by labels that come late.

Devices report counters of labelled and of correct answers, by the release that gave the answers.
The device is the unit, because the answers of one device are alike. In round j a device counts once
for each release, when it has k_j = 16, 32, ... 2048 labels of it, with the accuracy of all of them.
Each canary is compared

1. with devices that run the previous release and have as many labels, the newest first: as many
   as there are for each canary, at most four;
2. if none waits, with the answers of the previous release on the same device.

The difference, control minus canary, is one observation of a betting martingale
(``sequential.Bet``) against "the mean is at most ``max_labelled_accuracy_drop``". No device is used
twice for a release in a round, and the counts that decide when a device takes part do not depend on
which answers were correct, so each round is a martingale by itself. Eight rounds share the alpha of
``alphas.LABELS`` equally; by the union bound and Ville's inequality the probability that any round
ever reaches its bar is at most that alpha.

A device that compares with itself sees also what changed for all devices in between. So devices
that still run the previous release have a veto: if the accuracy of their labels since the last wave
opened, or since the bake began, fell half as much, the release is not to blame. A veto only takes
findings away.

Counters that a device sends twice count once. The first report after a restart of the hub is the
new start of the counters, so nothing counts again.
"""

import math
from array import array
from dataclasses import dataclass, field, replace
from typing import Final

from edgefleet.protocol.label_evidence import LabelEvidence
from edgefleet.protocol.labels import ModelLabels
from edgefleet.protocol.metrics import LABELLED_ACCURACY
from edgefleet.protocol.rollout import Difference, GateSpec
from edgefleet.rollout.evidence.pairing import difference
from edgefleet.rollout.evidence.sequential import Bet
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.limits import LABELS_OF_VETO, SCORES_WAITING

ROUNDS: Final = tuple(16 << step for step in range(8))
"""The labels of a device for one release at which it takes part, by round."""

_CONTROLS: Final = 4  # devices that a canary is compared with, at most
_SPREAD: Final = 1.2  # a difference is clipped to this over the root of the labels ...
_LEAST_BOUND: Final = 0.1  # ... and to no less than this
_LOG_SHARE: Final = -math.log(len(ROUNDS))
_CANARY, _CONTROL = 0, 1


@dataclass(slots=True)
class _Counts:
    labelled: int = 0
    correct: int = 0

    def add(self, labelled: int, correct: int) -> None:
        self.labelled += labelled
        self.correct += correct

    @property
    def accuracy(self) -> float:
        return self.correct / self.labelled if self.labelled else 0.0


class _Side:
    """The counters of one release, by row: of the last report, and the sums of their growth."""

    def __init__(self) -> None:
        self.last_labelled, self.last_correct = array("Q"), array("Q")
        self.labelled, self.correct = array("Q"), array("Q")
        self.used = bytearray()  # by row: one bit for each round in which it was compared
        self.total = _Counts()
        self.devices = 0  # with labels

    def make_room(self, size: int) -> None:
        empty = bytes(8 * (size - len(self.labelled)))
        for column in (self.last_labelled, self.last_correct, self.labelled, self.correct):
            column.frombytes(empty)
        self.used.extend(bytes(size - len(self.used)))

    def accuracy(self, row: int) -> float:
        return self.correct[row] / self.labelled[row]


@dataclass(slots=True)
class _Round:
    """The devices with enough labels that wait for a comparison, and the bet on the differences."""

    canaries: dict[int, float] = field(default_factory=dict)  # row -> accuracy, oldest first
    controls: dict[int, float] = field(default_factory=dict)
    bet: Bet | None = None


class Labels:
    """The labels of one rollout. Soft state but for the bets: 81 bytes a row once one has labels.

    ``is_resumed``: the rollout is older than this process.
    """

    def __init__(self, *, is_resumed: bool = False) -> None:
        self._is_resumed = is_resumed
        self._epochs = array("Q")  # by row: of the last report; 0 without one
        self._sides = (_Side(), _Side())
        self._rounds = tuple(_Round() for _ in ROUNDS)
        self._unmatched: dict[int, int] = {}  # row -> of the last report
        self._all_unmatched = 0
        self._recent = _Counts()  # of devices that run the previous release, in this period
        self._period: object = None

    def add(
        self,
        row: int,
        epoch: int,
        report: ModelLabels,
        *,
        release: str,
        previous: str | None,
        gate: GateSpec,
        is_control: bool,
        period: object,
    ) -> None:
        """Add the counters of a device. ``is_control``: it runs the previous release.

        ``period`` changes when a wave opens and when the bake begins.
        """
        if row >= len(self._epochs):
            self._make_room(row)
        if period != self._period:
            self._period, self._recent = period, _Counts()
        is_first, is_other = self._epochs[row] == 0, self._epochs[row] != epoch
        self._epochs[row] = epoch
        self._note_unmatched(row, report.unmatched)
        names = {release: _CANARY, previous: _CONTROL}
        found = {names[one.release]: one for one in report.releases if one.release in names}
        if _CANARY in found:
            for each in self._rounds:
                each.controls.pop(row, None)
        for number, side in enumerate(self._sides):
            one = found.get(number)
            labelled, correct = (one.labelled, one.correct) if one else (0, 0)
            before = (0, 0) if is_other else (side.last_labelled[row], side.last_correct[row])
            side.last_labelled[row], side.last_correct[row] = labelled, correct
            grown = labelled - before[0]
            if grown <= 0 or (is_first and self._is_resumed):
                continue
            right = min(max(correct - before[1], 0), grown)
            side.total.add(grown, right)
            if number == _CONTROL and is_control:
                self._recent.add(grown, right)
            self._grow(row, number, grown, right, gate, is_control=is_control)

    def evidence(self) -> LabelEvidence:
        """The counts of both releases."""
        canary, control = (side.total for side in self._sides)
        return LabelEvidence(
            canary=canary.labelled,
            canary_correct=canary.correct,
            control=control.labelled,
            control_correct=control.correct,
            unmatched=self._all_unmatched,
            is_shared=self._is_shared(),
        )

    def difference(self) -> Difference | None:
        """The result of the round with the most evidence. None without a comparison."""
        bet = self._clearest()
        return difference(LABELLED_ACCURACY, bet, log_share=_LOG_SHARE)

    def stored(self) -> list[StoredBet]:
        """The bets of all rounds, to be stored. ``release`` is the number of labels."""
        return [
            StoredBet(
                metric=LABELLED_ACCURACY.key,
                release=str(size),
                count=one.bet.count,
                total=one.bet.total,
                squares=one.bet.squares,
                logs=one.bet.logs,
            )
            for size, one in zip(ROUNDS, self._rounds, strict=True)
            if one.bet is not None
        ]

    def resume(self, found: StoredBet, gate: GateSpec) -> None:
        """Continue a stored bet."""
        for size, one in zip(ROUNDS, self._rounds, strict=True):
            if str(size) == found.release:
                one.bet = replace(
                    _new_bet(size, gate),
                    count=found.count,
                    total=found.total,
                    squares=found.squares,
                    logs=found.logs,
                )

    def _note_unmatched(self, row: int, count: int) -> None:
        if count or row in self._unmatched:
            self._all_unmatched += max(0, count - self._unmatched.get(row, 0))
            self._unmatched[row] = count

    def _grow(
        self, row: int, number: int, grown: int, right: int, gate: GateSpec, *, is_control: bool
    ) -> None:
        side = self._sides[number]
        before = side.labelled[row]
        side.devices += not before
        side.labelled[row] = after = before + grown
        side.correct[row] += right
        for place, size in enumerate(ROUNDS):
            if not before < size <= after:
                continue
            if number == _CANARY:
                self._add_canary(place, row, gate)
            else:
                self._add_control(place, row, gate, is_control=is_control)

    def _add_canary(self, place: int, row: int, gate: GateSpec) -> None:
        one, canary = self._rounds[place], self._sides[_CANARY].accuracy(row)
        if one.controls:
            count = min(self._controls_each(), len(one.controls))
            chosen = [one.controls.popitem() for _ in range(count)]
            for other, _ in chosen:
                self._use(place, other)
            control = sum(accuracy for _, accuracy in chosen) / len(chosen)
            self._compare(place, control - canary, gate)
        elif self._has_own(place, row):
            self._use(place, row)
            self._compare(place, self._sides[_CONTROL].accuracy(row) - canary, gate)
        elif len(one.canaries) < SCORES_WAITING:
            one.canaries[row] = canary

    def _add_control(self, place: int, row: int, gate: GateSpec, *, is_control: bool) -> None:
        one, control = self._rounds[place], self._sides[_CONTROL].accuracy(row)
        if row in one.canaries:
            self._use(place, row)
            self._compare(place, control - one.canaries.pop(row), gate)
        elif not is_control:
            return  # it took the release; it is compared once the release has labels on it
        elif one.canaries:
            self._use(place, row)
            self._compare(place, control - one.canaries.pop(next(iter(one.canaries))), gate)
        else:
            one.controls[row] = control
            if len(one.controls) > SCORES_WAITING:
                del one.controls[next(iter(one.controls))]

    def _controls_each(self) -> int:
        """How many devices with labels of the previous release there are for each canary."""
        canaries, controls = (side.devices for side in self._sides)
        return max(1, min(_CONTROLS, controls // max(1, canaries)))

    def _has_own(self, place: int, row: int) -> bool:
        """True if the previous release has enough labels on the device, not yet compared."""
        side = self._sides[_CONTROL]
        return side.labelled[row] >= ROUNDS[place] and not side.used[row] >> place & 1

    def _use(self, place: int, row: int) -> None:
        self._sides[_CONTROL].used[row] |= 1 << place

    def _compare(self, place: int, change: float, gate: GateSpec) -> None:
        one = self._rounds[place]
        one.bet = (one.bet or _new_bet(ROUNDS[place], gate)).after(change)

    def _clearest(self) -> Bet | None:
        bets = [one.bet for one in self._rounds if one.bet is not None]
        return max(bets, key=lambda bet: bet.log_wealth, default=None)

    def _is_shared(self) -> bool:
        """True if devices that still run the previous release got half as much worse."""
        bet, control = self._clearest(), self._sides[_CONTROL].total
        if bet is None or self._recent.labelled < LABELS_OF_VETO:
            return False
        fell = control.accuracy - self._recent.accuracy
        return bet.mean > 0 and 2 * fell >= bet.mean

    def _make_room(self, row: int) -> None:
        size = max(1024, 2 * len(self._epochs), row + 1)
        self._epochs.frombytes(bytes(8 * (size - len(self._epochs))))
        for side in self._sides:
            side.make_room(size)


def _new_bet(size: int, gate: GateSpec) -> Bet:
    allowed = LABELLED_ACCURACY.allowed(gate)
    bound = max(_LEAST_BOUND, _SPREAD / math.sqrt(size), 2 * allowed)
    return Bet(allowed=allowed, bound=bound)
