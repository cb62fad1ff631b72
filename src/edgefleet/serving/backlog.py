"""The inferences that wait for one release: how many, and the time that they will take.

A request whose deadline would pass before its answer is refused at once, and not run for nobody.
The time of a run is learnt from real runs, by the size of their inputs.
"""

import time
from typing import Final

from edgefleet.base.errors import NetworkError, Overloaded
from edgefleet.serving.limits import QUEUED

_WEIGHT: Final = 0.25  # of the newest run in the mean
_RETRY_S: Final = (1.0, 60.0)  # bounds of the pause that a client is asked for


class Backlog:
    """``queued`` inferences may wait. Times are of the performance counter, in nanoseconds.

    A request to an idle release is always run: so a mean that is too high is corrected.
    """

    def __init__(self, queued: int = QUEUED) -> None:
        self._queued = queued
        self._means: dict[int, float] = {}
        self._expected: dict[object, float] = {}  # of each inference that runs or waits
        self._total = 0.0
        self._began_ns = 0  # the start of the inference that runs; 0: none does

    def check(self, size: int, deadline_ns: int) -> None:
        """Raises Overloaded for one more inference of this ``size_class``.

        ``deadline_ns`` 0 is no deadline.
        """
        waiting = len(self._expected) - 1
        if waiting >= self._queued:
            text = f"{waiting} inferences are waiting; the limit is {self._queued}."
            raise Overloaded("queue_full", text, retry_after_s=self._retry_s())
        if deadline_ns and self._expected:
            left_ns = deadline_ns - time.perf_counter_ns()
            wait_ns = self._wait_ns() + self._means.get(size, 0.0)
            if wait_ns > left_ns > 0:  # one that has passed is a timeout, which the caller finds
                raise self._late(wait_ns, left_ns)

    def came(self, inference: object, size: int) -> None:
        """An inference runs or waits from now on, until ``went``."""
        expected = self._means.get(size, 0.0)
        self._expected[inference] = expected
        self._total += expected

    def went(self, inference: object) -> None:
        self._total -= self._expected.pop(inference, 0.0)
        if not self._expected:
            self._total = 0.0  # the sum of floats has an error

    def start(self, size: int, deadline_ns: int) -> None:
        """An inference is to run now.

        Raises Overloaded if its deadline would pass before its end, NetworkError ``timeout`` if it
        has passed.
        """
        now = time.perf_counter_ns()
        run_ns = self._means.get(size, 0.0)
        if deadline_ns and now + run_ns > deadline_ns:
            if now >= deadline_ns:
                text = "The timeout of the request passed before its turn."
                raise NetworkError("timeout", text, field="timeout")
            raise self._late(run_ns, deadline_ns - now)
        self._began_ns = now

    def ran(self, size: int) -> None:
        """The inference that was started has ended."""
        if self._began_ns:
            took_ns = time.perf_counter_ns() - self._began_ns
            mean = self._means.get(size, took_ns)
            self.learn(size, mean + _WEIGHT * (took_ns - mean))
        self._began_ns = 0

    def learn(self, size: int, run_ns: float) -> None:
        """A run of this ``size_class`` takes so long, as far as is known."""
        self._means[size] = run_ns

    def _wait_ns(self) -> float:
        """Until all that run or wait are done."""
        done = time.perf_counter_ns() - self._began_ns if self._began_ns else 0
        first = next(iter(self._expected.values()), 0.0)
        return self._total - min(done, first)

    def _retry_s(self) -> float:
        least, most = _RETRY_S
        return min(most, max(least, self._wait_ns() / 1e9))

    def _late(self, takes_ns: float, left_ns: float) -> Overloaded:
        return Overloaded(
            "deadline",
            f"The answer would take {takes_ns / 1e6:.0f} ms, and the client waits for "
            f"{left_ns / 1e6:.0f} ms.",
            retry_after_s=self._retry_s(),
            hint="Retry after the seconds in Retry-After, or with a longer timeout.",
        )
