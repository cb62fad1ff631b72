"""Work outside the world's thread. What goes wrong there is raised where the world runs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec

from edgefleet.sim.load.event_loop import Action

P = ParamSpec("P")


class Workers:
    """A few threads beside a world; ``post`` brings an action back into it."""

    def __init__(self, count: int, name: str, post: Callable[[Action], None]) -> None:
        self.post = post
        self._executor = ThreadPoolExecutor(count, name)

    def submit(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        def run() -> None:
            try:
                work(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - not judged here, only carried over
                self.post(_raising(error))

        self._executor.submit(run)

    def close(self) -> None:
        """Drop what has not begun; returns once what has is over."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _raising(error: Exception) -> Action:
    def action() -> None:
        raise error

    return action
