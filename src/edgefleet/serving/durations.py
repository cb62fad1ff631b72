"""The durations of a release for the statistics extension: sums, by the size of the batch."""

import time
from typing import Final

_SIZES: Final = 64  # of batches that are counted apart; further ones count in the sums alone


class Durations:
    """Counters and sums in nanoseconds since the release was loaded in this process.

    A request reads its inputs, waits for the model, and encodes its answer. An execution is a run
    of the model. The time between, without the way to a worker and back, is the time in the queue.
    """

    def __init__(self) -> None:
        self.answered = self.items = self.runs = 0
        self.input_ns = self.waited_ns = self.output_ns = self.run_ns = 0
        self.failed = self.failed_ns = 0
        self.last_ms = 0  # Unix time of the last answer
        self.batches: dict[int, list[int]] = {}  # size: runs, and ns of input, run and output

    def ran(self, items: int, run_ns: int) -> None:
        """Count a run of the model for so many items."""
        self.runs += 1
        self.run_ns += run_ns
        if (batch := self._batch(items)) is not None:
            batch[0] += 1
            batch[2] += run_ns

    def answer(
        self, items: int, input_ns: int, waited_ns: int, output_ns: int, *, requests: int = 1
    ) -> None:
        """Count answered requests of so many items each.

        The durations are sums over the requests. ``waited_ns`` is the time in the queue and in the
        model.
        """
        self.answered += requests
        self.items += items * requests
        self.input_ns += input_ns
        self.waited_ns += waited_ns
        self.output_ns += output_ns
        self.last_ms = time.time_ns() // 1_000_000
        if (batch := self._batch(items)) is not None:
            batch[1] += input_ns
            batch[3] += output_ns

    def fail(self, spent_ns: int) -> None:
        """Count a request without an answer: failed, refused by the queue, or too late."""
        self.failed += 1
        self.failed_ns += spent_ns

    @property
    def queue_ns(self) -> int:
        """The time that all answered requests were in the queue."""
        return max(0, self.waited_ns - self.run_ns)

    def _batch(self, items: int) -> list[int] | None:
        batch = self.batches.get(items)
        if batch is None and len(self.batches) < _SIZES:
            batch = self.batches[items] = [0, 0, 0, 0]
        return batch
