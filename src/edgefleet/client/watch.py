"""Watches a rollout until it ends. The hub may be unreachable meanwhile."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import NetworkError
from edgefleet.client.hub import HubClient
from edgefleet.client.limits import WATCH_EVERY_S
from edgefleet.protocol.rollout import RolloutView, Status

ENDED: Final = frozenset({Status.COMPLETED, Status.REVERTED, Status.REFUSED, Status.HALTED})
"""Statuses that only a person can change, and final statuses."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of the rollout now."""

    view: RolloutView


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The hub has not answered for ``since_s`` seconds. The watch continues."""

    since_s: float
    error: NetworkError


def watch(
    client: HubClient,
    rollout_id: str,
    *,
    clock: Clock,
    timeout_s: float | None = None,
    through_bake: bool = False,
    every_s: float = WATCH_EVERY_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Observed | NoAnswer]:
    """Read the rollout every ``every_s`` seconds, until it has ended or ``timeout_s`` is over.

    A completed rollout has ended, unless ``through_bake`` asks to stay until its bake has ended.

    The first read raises NetworkError: the address may be wrong. A later read without an answer
    gives ``NoAnswer``, so a watch continues when the hub is restarted.
    """
    started = clock.monotonic()
    view = client.rollout(rollout_id)
    answered = clock.monotonic()
    yield Observed(view)
    while not has_ended(view, through_bake=through_bake):
        if timeout_s is not None and clock.monotonic() - started >= timeout_s:
            return
        sleep(every_s)
        try:
            view = client.rollout(rollout_id)
        except NetworkError as error:
            yield NoAnswer(clock.monotonic() - answered, error)
            continue
        answered = clock.monotonic()
        yield Observed(view)


def has_ended(view: RolloutView, *, through_bake: bool) -> bool:
    """True if a watch of the rollout ends with this view."""
    bakes = view.bake is not None and view.bake.end is None
    if view.status is Status.COMPLETED and through_bake and bakes:
        return False
    return view.status in ENDED
