"""Runs an event loop in real time, with a queue for actions from other threads."""

from queue import Empty, SimpleQueue

from edgefleet.base.clock import Clock
from edgefleet.sim.limits import ACTIONS_PER_TURN, LONGEST_WAIT_S
from edgefleet.sim.load.event_loop import Action, EventLoop


class RealTime:
    """Runs ``world`` at the speed of ``clock``. Posted actions run between its events."""

    def __init__(self, world: EventLoop, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._inbox: SimpleQueue[Action] = SimpleQueue()
        self._stopped = False

    def post(self, action: Action) -> None:
        """Run ``action`` soon in the loop's thread. Call from any thread or signal handler."""
        self._inbox.put(action)

    def stop(self) -> None:
        """End ``run`` after the current action. Call from any thread or signal handler."""
        self.post(self._stop)

    def run(self) -> None:
        """Run until ``stop``. A loop slower than the clock falls behind, but drops no event."""
        ahead = self._world.now() - self._clock.monotonic()
        while not self._stopped:
            wall = self._clock.monotonic() + ahead
            kept_up = self._world.run(wall, at_most=ACTIONS_PER_TURN)
            self._run_posted(self._wait_s(ahead) if kept_up else 0.0)

    def _wait_s(self, ahead: float) -> float:
        due = self._world.next_at()
        wall = self._clock.monotonic() + ahead
        return LONGEST_WAIT_S if due is None else min(max(0.0, due - wall), LONGEST_WAIT_S)

    def _run_posted(self, wait_s: float) -> None:
        """Run all posted actions. If there is none, wait up to ``wait_s`` for one."""
        try:
            action = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
            while not self._stopped:
                action()
                action = self._inbox.get_nowait()
        except Empty:
            return

    def _stop(self) -> None:
        self._stopped = True
