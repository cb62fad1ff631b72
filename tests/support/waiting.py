"""Waiting in tests: each wait has a deadline, and fails with a sentence that names what is missing."""

import time
from collections.abc import Callable

WAIT_S = 60.0


def pause() -> None:
    time.sleep(0.01)


def until(
    holds: Callable[[], object],
    missing: str,
    *,
    within_s: float = WAIT_S,
    between: Callable[[], object] = pause,
) -> None:
    """Return once ``holds`` is true; call ``between`` after each check that is not.

    Raises AssertionError with ``missing``, a sentence on what did not come, after ``within_s``.
    """
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() >= deadline:
            raise AssertionError(f"{missing} Waited {within_s:g} s.")
        between()
