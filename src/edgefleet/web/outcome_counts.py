"""Counts of the devices of a cut by outcome, for the rollout and for each wave."""

from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.protocol.rollout import Evidence, RolloutView

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Account:
    """One outcome. ``key`` is also its colour class."""

    key: str
    label: str


ACCOUNTS: Final = (
    Account("healthy", "healthy"),
    Account("trial", "in trial"),
    Account("failed", "failed"),
    Account("refused", "refused"),
    Account("set_aside", "set aside"),
    Account("reverted", "reverted"),
    Account("deferred", "deferred"),
    Account("offline", "offline"),
    Account("not_begun", "not begun"),
    Account("taken_back", "taken back"),
    Account("waiting", "not there yet"),
)


@dataclass(frozen=True, slots=True)
class WaveAccounts:
    """The ``size`` devices that one wave added to the cut, by outcome."""

    percent: float
    state: Literal["done", "open", "ahead"]
    cut: int | None
    threshold: str | None
    size: int | None
    counts: Counts


def counts_of(evidence: Evidence) -> Counts:
    """Each device of the cut has exactly one outcome; ``waiting`` counts the rest."""
    reported = {
        "healthy": evidence.healthy,
        "trial": evidence.in_trial,
        "failed": evidence.failed,
        "refused": evidence.refused,
        "set_aside": evidence.set_aside,
        "reverted": evidence.reverted,
        "deferred": evidence.deferred,
        "offline": evidence.offline,
        "not_begun": evidence.not_begun,
        "taken_back": evidence.taken_back,
    }
    return reported | {"waiting": max(0, evidence.cut - sum(reported.values()))}


def by_wave(rollout: RolloutView) -> tuple[WaveAccounts, ...]:
    """The rollout's counts, divided over its waves.

    Evidence counts a wave together with all earlier waves. So an earlier wave gets the counts of
    its own verdict, as far as the current counts still contain them. Devices whose outcome changed
    since (for example reverted) fill the rest. The waves always add up to the current counts.
    """
    left = counts_of(rollout.evidence)
    opened = [index for index, wave in enumerate(rollout.waves) if wave.cut is not None]
    last = opened[-1] if opened else -1
    result: list[WaveAccounts] = []
    judged_before: Counts = {account.key: 0 for account in ACCOUNTS}
    cut_before = 0
    for index, wave in enumerate(rollout.waves):
        if wave.cut is None:
            result.append(WaveAccounts(wave.percent, "ahead", None, None, None, {}))
            continue
        size = max(0, wave.cut - cut_before)
        if index == last:
            counts = left
        else:
            judged = counts_of(wave.judgement.evidence) if wave.judgement else judged_before
            counts = _share_of_wave(left, judged, judged_before, size)
            judged_before = judged
        cut_before = wave.cut
        state: Literal["done", "open"] = "open" if index == rollout.wave else "done"
        result.append(WaveAccounts(wave.percent, state, wave.cut, wave.threshold, size, counts))
    return tuple(result)


def _share_of_wave(left: Counts, judged: Counts, judged_before: Counts, size: int) -> Counts:
    """Move ``size`` devices out of ``left``: first those of the wave's verdict, then others."""
    taken: Counts = {}
    room = size
    for key, number in left.items():
        taken[key] = min(max(0, judged[key] - judged_before[key]), number, room)
        room -= taken[key]
    for key in ("reverted", *left):
        more = min(left[key] - taken[key], room)
        taken[key] += more
        room -= more
    for key, number in taken.items():
        left[key] -= number
    return taken
