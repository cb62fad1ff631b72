"""Models whose runs are known to be short, so that a test gets an answer without an event loop."""

from collections.abc import Mapping
from typing import Any


def known_fast(routes: Mapping[str, Any]) -> None:
    """Let each release know that its runs take 5 us, whatever the size of their inputs."""
    for release in routes.values():
        release.times.learn(tuple((size, 5.0) for size in range(30)))
