"""A world at the pace of the wall clock, with a door through which other threads get in."""

from queue import Empty, SimpleQueue

from edgefleet.base.clock import Clock
from edgefleet.sim.limits import ACTIONS_PER_TURN, LONGEST_WAIT_S
from edgefleet.sim.load.event_loop import Action, EventLoop


class RealTime:
    """Runs ``world`` so that its time is the clock's. What is posted happens between its events."""

    def __init__(self, world: EventLoop, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._inbox: SimpleQueue[Action] = SimpleQueue()
        self._stopped = False

    def post(self, action: Action) -> None:
        """Let ``action`` happen in the world's thread, soon. From any thread or signal handler."""
        self._inbox.put(action)

    def stop(self) -> None:
        """End ``run`` after the action under way. From any thread or signal handler."""
        self.post(self._stop)

    def run(self) -> None:
        """Until ``stop``. A world that cannot keep up with the clock falls behind; none is lost."""
        ahead = self._world.now() - self._clock.monotonic()
        while not self._stopped:
            wall = self._clock.monotonic() + ahead
            kept_up = self._world.run(wall, at_most=ACTIONS_PER_TURN)
            self._take(self._wait_s(ahead) if kept_up else 0.0)

    def _wait_s(self, ahead: float) -> float:
        due = self._world.next_at()
        wall = self._clock.monotonic() + ahead
        return LONGEST_WAIT_S if due is None else min(max(0.0, due - wall), LONGEST_WAIT_S)

    def _take(self, wait_s: float) -> None:
        """Do what was posted: all that is there, or the first to come within ``wait_s``."""
        try:
            action = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
            while not self._stopped:
                action()
                action = self._inbox.get_nowait()
        except Empty:
            return

    def _stop(self) -> None:
        self._stopped = True
