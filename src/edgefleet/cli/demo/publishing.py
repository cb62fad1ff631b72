"""Publishes the releases with ``edgefleet model publish``, one after another."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgefleet.base.errors import InternalError
from edgefleet.cli.demo.limits import PUBLISH_TIMEOUT_S
from edgefleet.cli.demo.processes import plain_environment
from edgefleet.cli.demo.story import Chapter

_STOPPED: Final = InternalError("demo_failed", "Publishing was stopped.")


class Publisher:
    """Publishes the chapters' releases in order, in a thread."""

    def __init__(self, folders: Mapping[Chapter, Path], *, hub_folder: Path, key: Path) -> None:
        self._folders = folders
        self._hub_folder = hub_folder
        self._key = key
        self._published: set[Chapter] = set()
        self._error: InternalError | None = None
        self._child: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def wait(self, chapter: Chapter) -> None:
        """Wait until its release is published.

        Raises InternalError ``demo_failed`` if publishing fails.
        """
        with self._changed:
            over = self._changed.wait_for(
                lambda: chapter in self._published or self._error, PUBLISH_TIMEOUT_S
            )
            if chapter in self._published:
                return
            if self._error or not over:
                raise self._error or InternalError(
                    "demo_failed",
                    f"Publishing {chapter.name} took longer than {PUBLISH_TIMEOUT_S:g} s.",
                )

    def stop(self) -> None:
        """Stop publishing."""
        with self._changed:
            self._error = self._error or _STOPPED
            if self._child:
                self._child.terminate()
        self._thread.join()

    def _run(self) -> None:
        for chapter, folder in self._folders.items():
            with self._changed:
                if self._error:
                    return
                self._child = child = self._begin(chapter, folder)
            output = child.communicate()[0]
            with self._changed:
                if child.returncode == 0:
                    self._published.add(chapter)
                elif self._error is None:
                    message = f"{chapter.name} cannot be published:\n{output}"
                    self._error = InternalError("demo_failed", message)
                self._changed.notify_all()

    def _begin(self, chapter: Chapter, folder: Path) -> subprocess.Popen[str]:
        arguments = ["model", "publish", str(folder), "--key", str(self._key), "--trust"]
        arguments += ["--data-dir", str(self._hub_folder)]
        if chapter.skip_proof:
            arguments.append("--skip-proof")
        return subprocess.Popen(
            [sys.executable, "-m", "edgefleet.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=plain_environment(),
            start_new_session=True,
        )
