"""The accounts that the devices of a cut fall into, and which wave they fall into them in."""

from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.protocol.rollout import Evidence, RolloutView

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Account:
    """One account. ``key`` is also its colour class."""

    key: str
    label: str


ACCOUNTS: Final = (
    Account("healthy", "healthy"),
    Account("trial", "in trial"),
    Account("failed", "failed"),
    Account("refused", "refused"),
    Account("reverted", "reverted"),
    Account("deferred", "deferred"),
    Account("offline", "offline"),
    Account("not_begun", "not begun"),
    Account("waiting", "not there yet"),
)


@dataclass(frozen=True, slots=True)
class WaveAccounts:
    """The devices that one wave added to the cut: ``size`` of them, by account."""

    percent: float
    state: Literal["done", "open", "ahead"]
    cut: int | None
    threshold: str | None
    size: int | None
    counts: Counts


def counts_of(evidence: Evidence) -> Counts:
    """Each device of the cut in exactly one account; ``waiting`` is what remains."""
    said = {
        "healthy": evidence.healthy,
        "trial": evidence.in_trial,
        "failed": evidence.failed,
        "refused": evidence.refused,
        "reverted": evidence.reverted,
        "deferred": evidence.deferred,
        "offline": evidence.offline,
        "not_begun": evidence.not_begun,
    }
    return said | {"waiting": max(0, evidence.cut - sum(said.values()))}


def by_wave(rollout: RolloutView) -> tuple[WaveAccounts, ...]:
    """The rollout's accounts, laid out over its waves.

    Evidence counts a wave together with all before it. So an earlier wave gets what its own verdict
    saw, as far as that still stands in the counts of now; devices that moved on since (went back,
    say) fill its rest. Over all waves the counts always add up to those of now.
    """
    left = counts_of(rollout.evidence)
    opened = [index for index, wave in enumerate(rollout.waves) if wave.cut is not None]
    last = opened[-1] if opened else -1
    result: list[WaveAccounts] = []
    seen_before: Counts = {account.key: 0 for account in ACCOUNTS}
    cut_before = 0
    for index, wave in enumerate(rollout.waves):
        if wave.cut is None:
            result.append(WaveAccounts(wave.percent, "ahead", None, None, None, {}))
            continue
        size = max(0, wave.cut - cut_before)
        if index == last:
            counts = left
        else:
            seen = counts_of(wave.judgement.evidence) if wave.judgement else seen_before
            counts = _take(left, seen, seen_before, size)
            seen_before = seen
        cut_before = wave.cut
        state: Literal["done", "open"] = "open" if index == rollout.wave else "done"
        result.append(WaveAccounts(wave.percent, state, wave.cut, wave.threshold, size, counts))
    return tuple(result)


def _take(left: Counts, seen: Counts, seen_before: Counts, size: int) -> Counts:
    """Move ``size`` devices out of ``left``: first as the wave's verdict saw them, then others."""
    taken: Counts = {}
    room = size
    for key, standing in left.items():
        taken[key] = min(max(0, seen[key] - seen_before[key]), standing, room)
        room -= taken[key]
    for key in ("reverted", *left):
        more = min(left[key] - taken[key], room)
        taken[key] += more
        room -= more
    for key, number in taken.items():
        left[key] -= number
    return taken
