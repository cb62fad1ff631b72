"""Following a rollout until it ends, through a hub that may be away for a while."""

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
"""Where a rollout stands still until a person does something, or for good."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The rollout as the hub shows it now."""

    view: RolloutView


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The hub has not answered for ``since_s`` seconds; it is asked again."""

    since_s: float
    error: NetworkError


def watch(
    client: HubClient,
    rollout_id: str,
    *,
    clock: Clock,
    timeout_s: float | None = None,
    every_s: float = WATCH_EVERY_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Seen | NoAnswer]:
    """What is seen at each look, until the rollout has ended or ``timeout_s`` is over.

    The first look raises NetworkError like any other call: an address that never answered is
    wrong. Later ones come as ``NoAnswer`` and go on, so that a hub may be restarted meanwhile.
    """
    started = clock.monotonic()
    view = client.rollout(rollout_id)
    answered = clock.monotonic()
    yield Seen(view)
    while view.status not in ENDED:
        if timeout_s is not None and clock.monotonic() - started >= timeout_s:
            return
        sleep(every_s)
        try:
            view = client.rollout(rollout_id)
        except NetworkError as error:
            yield NoAnswer(clock.monotonic() - answered, error)
            continue
        answered = clock.monotonic()
        yield Seen(view)
