"""Every device of a cut is counted under one outcome and in one wave."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.rollout import Evidence, Judgement, Status, Verdict, WaveView
from edgefleet.web.outcome_counts import by_wave, counts_of
from support.scenes import rollout_in

KINDS = (
    "healthy", "in_trial", "failed", "refused", "reverted", "offline", "deferred", "not_begun",
    "taken_back", "set_aside",
)  # fmt: skip


def test_what_nobody_said_is_not_there_yet() -> None:
    counts = counts_of(Evidence(cut=10, healthy=4, failed=1))
    assert counts["waiting"] == 5
    assert sum(counts.values()) == 10


@pytest.mark.parametrize("status", Status)
def test_the_waves_together_hold_exactly_the_devices_of_now(status: Status) -> None:
    rollout = rollout_in(status)
    waves = by_wave(rollout)
    now = counts_of(rollout.evidence)
    for account, number in now.items():
        assert sum(wave.counts.get(account, 0) for wave in waves) == number


def evidences(cut: int) -> st.SearchStrategy[Evidence]:
    def made(numbers: list[int]) -> Evidence:
        left, fields = cut, {}
        for kind, number in zip(KINDS, numbers, strict=True):
            fields[kind] = min(number, left)
            left -= fields[kind]
        return Evidence(cut=cut, **fields)

    return st.lists(st.integers(0, cut), min_size=len(KINDS), max_size=len(KINDS)).map(made)


@given(evidences(7), evidences(50))
def test_an_earlier_wave_holds_its_own_devices_and_none_is_counted_twice(
    first: Evidence, now: Evidence
) -> None:
    seen = Judgement(verdict=Verdict.PASS, reason="healthy", text="", at=1.0, evidence=first)
    rollout = msgspec.structs.replace(
        rollout_in(Status.RUNNING),
        evidence=now,
        waves=(
            WaveView(percent=1, cut=7, opened_at=0.0, closed_at=1.0, judgement=seen),
            WaveView(percent=10, cut=50, opened_at=1.0),
            WaveView(percent=100),
        ),
    )
    one, two, ahead = by_wave(rollout)
    assert sum(one.counts.values()) == 7
    assert sum(two.counts.values()) == 43
    assert ahead.state == "ahead"
    for account, number in counts_of(now).items():
        assert one.counts[account] + two.counts[account] == number


def test_devices_that_went_back_since_are_shown_as_gone_back() -> None:
    seen = Evidence(cut=10, healthy=10)
    passed = Judgement(verdict=Verdict.PASS, reason="healthy", text="", at=1.0, evidence=seen)
    rollout = msgspec.structs.replace(
        rollout_in(Status.REVERTING),
        evidence=Evidence(cut=100, failed=20, reverted=80),
        waves=(
            WaveView(percent=10, cut=10, opened_at=0.0, judgement=passed),
            WaveView(percent=100, cut=100, opened_at=1.0),
        ),
    )
    first, _ = by_wave(rollout)
    assert first.counts["reverted"] == 10
    assert first.counts["healthy"] == 0
