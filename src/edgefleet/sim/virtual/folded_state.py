"""Compact agent states of idle devices: folding a state into a row, and restoring it.

Devices with the same history have states that differ only in sequence numbers. So each distinct
state is kept once, and a row has its number. Only settled states fold, so folding loses nothing.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edgefleet.agent.state import AgentState, Health, ModelState, Soft, running
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import ModelReport, digest
from edgefleet.rollout.fleet.columns import Rows, gather

_replace: Final = msgspec.structs.replace


class FoldedStates:
    """One settled state for each row."""

    def __init__(self, count: int) -> None:
        self._shape = np.zeros(count, np.uint32)
        self._seq = np.zeros(count, np.int32)
        self._reserved = np.zeros(count, np.int32)
        self._shapes: list[AgentState] = []
        self._reports: list[tuple[ModelReport, ...]] = []
        self._digest = np.zeros(count, np.uint32)
        self._digests: list[int] = []
        self._numbers: dict[Any, int] = {}

    def fold(self, rows: Rows, state: AgentState) -> None:
        """Store a settled state for each of ``rows``."""
        number = self._numbers.get(_key(state))
        if number is None:
            number = self._numbers[_key(state)] = len(self._shapes)
            self._shapes.append(_replace(state, soft=Soft(), seq_reserved=0))
            self._reports.append(reports_of(state))
            self._digests.append(digest(self._reports[number]))
        self._shape[rows] = number
        self._digest[rows] = self._digests[number]
        self._seq[rows] = state.soft.seq
        self._reserved[rows] = state.seq_reserved

    def alike(self, rows: Rows, kinds: npt.NDArray[np.intp]) -> Iterator[Rows]:
        """Split ``rows`` into groups with equal ``kinds`` and states.

        The states of a group may differ in their sequence numbers.
        """
        if len(rows):
            yield from parted(rows, (self._shape[rows], kinds[rows]))

    def unfold(self, rows: Rows, checkin_at: float) -> AgentState:
        """The state of the agents of a group, whose next check-in is due at ``checkin_at``.

        It has the highest sequence number of the group. So some agents skip numbers, as agents do
        at each boot: the hub only compares a number with the one before.
        """
        number = self._shape.item(rows[0])
        soft = Soft(
            booted=True,
            seq=int(self._seq[rows].max()),
            checkin_at=checkin_at,
            known=self._reports[number],
        )
        shape = self._shapes[number]
        return _replace(shape, seq_reserved=int(self._reserved[rows].max()), soft=soft)

    def digests(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """The digest of its models in the heartbeats of each of the ascending ``rows``."""
        return gather(self._digest, rows)

    def reports(self, row: int) -> tuple[ModelReport, ...]:
        """The models on the device."""
        return self._reports[self._shape.item(row)]


def reports_of(state: AgentState) -> tuple[ModelReport, ...]:
    """The models on a device whose models are all idle, by name."""
    found = [(name, running(state.models[name])) for name in sorted(state.models)]
    return tuple(
        [ModelReport(model=name, release=release) for name, release in found if release is not None]
    )


def parted(rows: Rows, columns: tuple[npt.NDArray[Any], ...]) -> Iterator[Rows]:
    """Split ascending ``rows`` into groups with equal values in ``columns``. Groups ascend too."""
    order = np.lexsort(columns)
    apart = np.zeros(max(0, len(rows) - 1), np.bool_)
    for column in columns:
        apart |= np.diff(column[order]) != 0
    yield from np.split(rows[order], np.flatnonzero(apart) + 1)


def settled(state: AgentState, now: float) -> bool:
    """Whether nothing is in progress and nothing waits to be reported before the next check-in."""
    soft = state.soft
    return (
        all(model.stage is Stage.IDLE for model in state.models.values())
        and soft.sent is None
        and not state.spool
        and soft.checkin_at > now
        and soft.switch is None
        and soft.switch_at is None
        and all(model.offers_after <= now for model in soft.models.values())
        and state.facts_known
        and soft.health == Health()
        and soft.known == reports_of(state)  # the hub knows the models
    )


def _key(state: AgentState) -> tuple[object, ...]:
    """A key that is equal for states that differ only in sequence numbers."""
    models = tuple((name, _model_key(state.models[name])) for name in sorted(state.models))
    return (
        models, state.attempts, state.facts and state.facts.profile, state.interval_s, state.pace,
    )  # fmt: skip


def _model_key(model: ModelState) -> tuple[object, ...]:
    a, b = model.a, model.b
    return (
        model.active, model.ended, a.confirmed, a.proved, a.leftover,
        a.installed and (a.installed.release, a.installed.variant.profile),
        b.confirmed, b.proved, b.leftover,
        b.installed and (b.installed.release, b.installed.variant.profile),
    )  # fmt: skip
