"""Downloads that bring other bytes than those of the release: a fault of the network, or of it.

A mismatch is tried again, with pauses that grow to DAMAGE_PAUSE_MAX_S, so for days. After
DAMAGE_DEFERRED mismatches the attempt counts as deferred. DAMAGE_REPEATED fresh downloads in a row
with the same wrong bytes are told to the hub, which compares devices. The device itself refuses the
release only if DAMAGE_SAME downloads in a row, over DAMAGE_INTERVALS check-in intervals, bring the
same wrong bytes.
"""

from edgefleet.agent import limits
from edgefleet.agent.event import StagingFailed
from edgefleet.agent.state import Damage
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import WrongBytes


def after(before: Damage | None, event: StagingFailed, now: float) -> Damage:
    """The damage with one more mismatch. A partial or foreign answer (no digest) proves nothing."""
    damage = before or Damage(since=now)
    damage = replace(damage, times=damage.times + 1)
    if not event.found:
        return damage
    if event.found == damage.found:
        return replace(damage, same=damage.same + 1)
    return replace(damage, found=event.found, same=1, since=now)


def wrong_bytes(damage: Damage, event: StagingFailed) -> WrongBytes | None:
    """A report for the hub once the same wrong bytes came DAMAGE_REPEATED times in a row."""
    if not (event.expected and event.found) or damage.same != limits.DAMAGE_REPEATED:
        return None
    return WrongBytes(expected=event.expected, found=event.found)


def is_of_the_release(damage: Damage, now: float, interval_s: float) -> bool:
    """Whether the same wrong bytes came often enough, over a time that is long enough."""
    span_s = limits.DAMAGE_INTERVALS * interval_s
    return damage.same >= limits.DAMAGE_SAME and now - damage.since >= span_s


def pause_s(damage: Damage, interval_s: float) -> float:
    """The pause before the next download. Each one may cost all bytes of the release."""
    first = min(limits.BACKOFF_FIRST_S, interval_s)
    growth = limits.DAMAGE_GROWTH ** min(damage.times - 1, 16)
    return min(
        limits.DAMAGE_PAUSE_MAX_S, limits.DAMAGE_PAUSE_INTERVALS * interval_s, first * growth
    )
