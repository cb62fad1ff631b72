"""A thread for long work, so that the loop does not block."""

import contextlib
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue

Task = Callable[[], None]


class Stopped(Exception):  # noqa: N818 - requested, no error
    """The work was stopped on request."""


class Token:
    """Cancellation of one piece of work. ``stop`` may be called from any thread."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None

    def stop(self) -> None:
        """Cancel the work, and call the ``kill`` of ``ending``."""
        with self._lock:
            self._stopped.set()
            if self._kill is not None:
                self._kill()

    def check(self, wait_s: float = 0.0) -> None:
        """Raise Stopped if the work is cancelled now or within ``wait_s`` seconds."""
        if self._stopped.wait(wait_s) if wait_s > 0 else self._stopped.is_set():
            raise Stopped

    @contextlib.contextmanager
    def ending(self, kill: Callable[[], None]) -> Generator[None]:
        """Make ``stop`` call ``kill`` while the block runs."""
        with self._lock:
            self._kill = kill
            if self._stopped.is_set():
                kill()
        try:
            yield
        finally:
            with self._lock:
                self._kill = None


class Worker:
    """A worker thread, started with its first task: an idle agent has fewer threads."""

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._name = name
        self._failed = failed
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def do(self, task: Task) -> None:
        """Queue ``task``. An exception of it is passed to ``failed``."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._tasks.put(task)

    def close(self, timeout_s: float) -> None:
        """Finish the queued tasks, within ``timeout_s`` seconds at most."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again in the loop
                self._failed(error)
