"""Wait for one file descriptor, whatever its number: ``select.select`` refuses those above 1023."""

import select


def wait_readable(handle: int, timeout_s: float | None = None) -> bool:
    """Wait until ``handle`` can be read: data, its end, or the end of a pidfd's process.

    Returns False after ``timeout_s``.
    """
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))
