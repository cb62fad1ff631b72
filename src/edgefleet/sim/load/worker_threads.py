"""Worker threads beside the event loop. Their errors are raised in the loop's thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec

from edgefleet.sim.load.event_loop import Action

P = ParamSpec("P")


class Workers:
    """A pool of worker threads. ``post`` runs an action in the event loop's thread."""

    def __init__(self, count: int, name: str, post: Callable[[Action], None]) -> None:
        self.post = post
        self._executor = ThreadPoolExecutor(count, name)

    def submit(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        def run() -> None:
            try:
                work(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised in the loop's thread
                self.post(_raising(error))

        self._executor.submit(run)

    def close(self) -> None:
        """Cancel the queued work and wait for the running work."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _raising(error: Exception) -> Action:
    def action() -> None:
        raise error

    return action
