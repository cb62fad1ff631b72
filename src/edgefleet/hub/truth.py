"""Labels from people and programs, kept until their device has them.

A label is durable before it is acknowledged. A device gets its oldest labels with each answer to a
check-in until it acknowledges their numbers, and counts each answer once, so neither a lost answer
nor a restart of the hub counts a label twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.hub.actors import line_by
from edgefleet.hub.limits import TRUTH_KEPT_S, TRUTH_PER_DEVICE, TRUTH_WAITING
from edgefleet.hub.store.records import StoredTruth
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.labels import LABELS_PER_ANSWER, ModelTruth
from edgefleet.protocol.operator import TruthAdded, TruthRequest
from edgefleet.security.principals import Principal


class WaitingTruth:
    """The labels of all devices that wait, in memory. ``load`` reads them from the store.

    ``has_model`` and ``takes_labels`` answer for the row of a device.
    """

    def __init__(
        self,
        store: SqliteStore,
        clock: Clock,
        *,
        has_model: Callable[[int, str], bool],
        takes_labels: Callable[[int], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._has_model = has_model
        self._takes_labels = takes_labels
        self._by_row: dict[int, deque[StoredTruth]] = {}
        self.count = 0  # labels that wait, of all devices

    def load(self) -> None:
        """Restore the labels from the store."""
        self._keep(tuple(self._store.reader.load_truth()))

    async def add(self, row: int, request: TruthRequest, by: Principal) -> TruthAdded:
        """Store labels for a device. All are stored, or none.

        Raises OperatorError ``bad_request``, ``not_found``, ``labels_unsupported`` or
        ``too_many_labels``.
        """
        for place, label in enumerate(request.labels):
            if label.fault:
                raise OperatorError("bad_request", label.fault, field=f"labels[{place}]")
        if not self._has_model(row, request.model):
            raise OperatorError(
                "not_found", f"{request.device} has no model {request.model}.", field="model"
            )
        if not self._takes_labels(row):
            raise OperatorError(
                "labels_unsupported",
                f"The agent of {request.device} takes no labels from the hub.",
                field="device",
            )
        now = self._clock.now()
        self._drop_old(now)
        self._check_room(row, len(request.labels))
        line = line_by(
            by.named(request.person),
            "add_truth",
            f"device/{request.device}",
            f"{counted(len(request.labels), 'label')} for {request.model}",
        )
        await self._store.save_truth(
            row, request.model, request.labels, line=line, now=now, committed=self._keep
        )
        return TruthAdded(added=len(request.labels), waiting=self.waiting(row))

    def waiting(self, row: int) -> int:
        """Labels that wait for a device."""
        return len(self._by_row.get(row, ()))

    def forget(self, row: int) -> None:
        """Drop the labels of a device that was removed. They are gone from the store."""
        self.count -= len(self._by_row.pop(row, ()))

    def next_for(self, row: int) -> tuple[ModelTruth, ...]:
        """The oldest labels of a device, for the answer to its check-in."""
        waiting = self._by_row.get(row)
        if waiting is None:
            return ()
        return tuple(one.truth for one in islice(waiting, LABELS_PER_ANSWER))

    def done(self, row: int, number: int) -> None:
        """The device has its labels up to ``number``."""
        waiting = self._by_row.get(row)
        if waiting is None or waiting[0].truth.number > number:
            return
        # A label that cannot be removed is sent again after a restart; it counts once all the same.
        self._store.remove_truth(row, number).add_done_callback(_ignore_error)
        while waiting and waiting[0].truth.number <= number:
            waiting.popleft()
            self.count -= 1
        if not waiting:
            del self._by_row[row]

    def _keep(self, stored: tuple[StoredTruth, ...]) -> None:
        for one in stored:
            self._by_row.setdefault(one.row, deque()).append(one)
        self.count += len(stored)

    def _check_room(self, row: int, count: int) -> None:
        mine = self.waiting(row)
        for waiting, most, whose in (
            (mine, TRUTH_PER_DEVICE, "the device"),
            (self.count, TRUTH_WAITING, "all devices"),
        ):
            if waiting + count > most:
                raise OperatorError(
                    "too_many_labels",
                    f"{counted(waiting, 'label')} of {whose} waiting, and {count} new; "
                    f"at most {most} may wait.",
                    field="labels",
                )

    def _drop_old(self, now: float) -> None:
        """Remove labels for devices that have not come for them in ``TRUTH_KEPT_S``."""
        before = now - TRUTH_KEPT_S
        old = {row: one for row, one in self._by_row.items() if one[0].at < before}
        for row, waiting in old.items():
            last = max(one.truth.number for one in waiting if one.at < before)
            self.done(row, last)


def _ignore_error(removed: "asyncio.Future[None]") -> None:
    if not removed.cancelled():
        removed.exception()
