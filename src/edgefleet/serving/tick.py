"""Requests that arrive in one turn of the event loop, asked of their release together.

No request waits for another one: what has been read when the event loop is done with its sockets
goes as one call of the runtime, and there is no timer. A call of a small model costs more than its
arithmetic, so 16 requests together cost little more than one.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from edgefleet.base.errors import EdgefleetError
from edgefleet.serving.active_release import Inferred, Release, ReleaseEnded
from edgefleet.serving.row_wise import BATCHED_BYTES, RowWise, stacked
from edgefleet.serving.run_times import bytes_of
from edgefleet.serving.runtime import Tensor

_LONELY: Final = 16


class Queued(Protocol):
    """A request that waits for the end of the turn. ``items`` is its batch."""

    @property
    def active(self) -> Release: ...
    @property
    def inputs(self) -> dict[str, Tensor]: ...
    @property
    def run_outputs(self) -> tuple[str, ...]: ...
    @property
    def items(self) -> int: ...


Q = TypeVar("Q", bound=Queued)


class Tick(Generic[Q]):
    """Collects requests and runs them at the end of the turn.

    ``answer`` gets the requests of one run, its inputs and its outputs. ``fail`` gets the error of
    one request. ``again`` gets a request whose release was swapped out before it ran.
    """

    def __init__(
        self,
        routes: Callable[[], Mapping[str, Release]],
        answer: Callable[[Sequence[Q], Mapping[str, Tensor], Inferred], None],
        fail: Callable[[Q, Exception], None],
        again: Callable[[Q], None],
    ) -> None:
        self._routes = routes
        self._answer = answer
        self._fail = fail
        self._again = again
        self._queue: list[Q] = []
        self._lonely = 0  # turns in a row with one request
        self._open = False  # a request has been run in this turn, without being queued

    def collects(self) -> bool:
        """Whether the next request is to be queued with ``add``, or is best run at once.

        While every turn has one request, the way through the queue would only cost.
        """
        if self._lonely < _LONELY:
            return True
        if self._open:
            self._lonely = 0
            return True
        self._open = True
        asyncio.get_running_loop().call_soon(self._close)
        return False

    def _close(self) -> None:
        self._open = False

    def add(self, one: Q) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._run)
        self._queue.append(one)

    def _run(self) -> None:
        queue, self._queue = self._queue, []
        self._lonely = self._lonely + 1 if len(queue) == 1 else 0
        for group in _groups(queue):
            active = group[0].active
            if self._routes().get(active.model) is not active:
                for one in group:
                    self._again(one)
            elif len(group) == 1 or (active.rows is not None and active.rows.proven):
                self._infer(group)
            else:
                self._prove(group, active.rows)

    def _infer(self, group: Sequence[Q]) -> None:
        """One run for the group."""
        first = group[0]
        inputs = first.inputs if len(group) == 1 else stacked([one.inputs for one in group])
        try:
            inferred = first.active.infer(inputs, first.run_outputs)
        except (EdgefleetError, ReleaseEnded) as error:
            self._failed(group, error)
            return
        if isinstance(inferred, tuple):
            self._came(group, inputs, inferred)
        else:
            inferred.add_done_callback(partial(self._came_later, group, inputs))

    def _came_later(
        self,
        group: Sequence[Q],
        inputs: Mapping[str, Tensor],
        coming: "asyncio.Future[Inferred]",
    ) -> None:
        error = coming.exception()
        if error is None:
            self._came(group, inputs, coming.result())
        elif isinstance(error, Exception):
            self._failed(group, error)

    def _came(self, group: Sequence[Q], inputs: Mapping[str, Tensor], inferred: Inferred) -> None:
        rows = group[0].active.rows
        if len(group) > 1 and not _has_rows(inferred[0], sum([one.items for one in group])):
            if rows is not None:
                rows.possible = False
            for one in group:
                self._infer([one])
            return
        self._answer(group, inputs, inferred)

    def _failed(self, group: Sequence[Q], error: Exception) -> None:
        """A request that makes the model fail must not fail the others: each runs alone."""
        if (
            len(group) > 1
            and isinstance(error, EdgefleetError)
            and error.code == "inference_failed"
        ):
            for one in group:
                self._infer([one])
            return
        for one in group:
            self._fail(one, error)

    def _prove(self, group: Sequence[Q], rows: RowWise | None) -> None:
        """Answer each request alone, and compare with the answers of one run for all."""
        alone: list[Sequence[Tensor]] = []
        for one in group:
            try:
                inferred = one.active.infer(one.inputs, one.run_outputs)
            except (EdgefleetError, ReleaseEnded) as error:
                self._fail(one, error)
                continue
            if isinstance(inferred, tuple):
                alone.append(inferred[0])
                self._answer([one], one.inputs, inferred)
            else:
                inferred.add_done_callback(partial(self._came_later, [one], one.inputs))
        if rows is None or not rows.possible or len(alone) != len(group):
            return
        inputs = [one.inputs for one in group]
        try:
            together = group[0].active.infer(stacked(inputs), group[0].run_outputs)
        except (EdgefleetError, ReleaseEnded):
            rows.possible = False
            return
        if isinstance(together, tuple):
            rows.compare(inputs, alone, together[0])
        else:  # this size is not known to be fast yet: the run was the first step to learn it
            together.add_done_callback(_forget)


def may_batch(active: Release, inputs: Mapping[str, Tensor], items: int) -> bool:
    """Whether a request of so many items may be run together with others of the same turn."""
    rows = active.rows
    if rows is None or not rows.possible:
        return False
    size_bytes = bytes_of(inputs)
    return (
        items < rows.max_batch
        and size_bytes <= BATCHED_BYTES
        and size_bytes.bit_length() in active.times.short
    )


def _has_rows(made: Sequence[Tensor], items: int) -> bool:
    """Whether each output of a run has a row for each item."""
    return all(tensor.shape[:1] == (items,) for tensor in made)


def _forget(coming: "asyncio.Future[Inferred]") -> None:
    if not coming.cancelled():
        coming.exception()


def _groups(queue: Sequence[Q]) -> Iterator[list[Q]]:
    """The requests that may be run together: of one release and outputs, up to its batch."""
    waiting: dict[tuple[int, tuple[str, ...]], list[Q]] = {}
    for one in queue:
        waiting.setdefault((id(one.active), one.run_outputs), []).append(one)
    for same in waiting.values():
        limit = same[0].active.wanted.variant.max_batch
        if sum([one.items for one in same]) <= limit:
            yield same
            continue
        group: list[Q] = []
        items = 0
        for one in same:
            if group and items + one.items > limit:
                yield group
                group, items = [], 0
            group.append(one)
            items += one.items
        yield group
