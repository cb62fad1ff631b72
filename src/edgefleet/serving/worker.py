"""The process of a release: ``python -m edgefleet.serving.worker SOCKET MEMORY BODIES PATIENT``.

The first three arguments are inherited file descriptors; see ``worker_channel``. A model that
crashes its runtime, uses too much memory or never answers ends this process only. The worker ends
with the serving process.

With PATIENT 1 the release is loaded by a thread that runs only when a core is idle, so that the
requests of other models go first. The thread that runs the model has the usual priority: without
privileges a thread cannot get that back. Therefore this module imports next to nothing. With
PATIENT 2 it can: the whole process runs only when a core is idle until the release is loaded.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from edgefleet.serving.worker_loop import Worker


def main(arguments: Sequence[str]) -> int:
    """Serve until the channel is closed. See the top of this module."""
    descriptor, memory, bodies, patient = (int(argument) for argument in arguments)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the serving process waits for its signals
    channel = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    # If memory runs out, the system ends a worker before the serving process.
    with (
        contextlib.suppress(OSError),
        open(  # noqa: PTH123 - see above
            "/proc/self/oom_score_adj", "w"
        ) as score,
    ):
        score.write("1000")
    loaded: list[Worker | None] = []

    def begin() -> None:
        if patient:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        from edgefleet.serving.worker_loop import load  # noqa: PLC0415 - takes 0.4 s

        loaded.append(load(channel, memory, bodies))

    loader = threading.Thread(target=begin)
    loader.start()
    loader.join()  # requests are never kept waiting by this thread: it has ended before the answer
    if patient > 1:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if not loaded:
        return 1  # the thread has printed its error
    if loaded[0] is not None:
        loaded[0].serve()
    return 0


def _end_with_parent(descriptor: int) -> None:
    """End this process when the channel is closed, also while the model runs."""
    closed = select.poll()
    closed.register(descriptor, select.POLLRDHUP)
    closed.poll()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
