"""A thread that does one long thing after the other, so that the loop never waits."""

import contextlib
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue

Task = Callable[[], None]


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The work was stopped on request."""


class Token:
    """One piece of work's permission to go on. ``stop`` may come from any thread."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None

    def stop(self) -> None:
        """Take the permission away, and end at once what ``ending`` named."""
        with self._lock:
            self._stopped.set()
            if self._kill is not None:
                self._kill()

    def check(self, wait_s: float = 0.0) -> None:
        """Raise Stopped when the permission is gone, or goes within ``wait_s``."""
        if self._stopped.wait(wait_s) if wait_s > 0 else self._stopped.is_set():
            raise Stopped

    @contextlib.contextmanager
    def ending(self, kill: Callable[[], None]) -> Generator[None]:
        """Have ``stop`` call ``kill`` while the block runs."""
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
    """Started with its first task. An idle agent that never needed it has no such thread."""

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._name = name
        self._failed = failed
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def do(self, task: Task) -> None:
        """Do ``task`` after those before it. What it raises goes to ``failed``."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._tasks.put(task)

    def close(self, timeout_s: float) -> None:
        """Finish what is waiting, for at most ``timeout_s``."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - the loop ends on it, loudly
                self._failed(error)
