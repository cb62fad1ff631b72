"""The shares of alpha: their sum, and that the gate takes every share from the table."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from edgefleet.protocol.rollout import (
    ClassRate,
    Difference,
    Evidence,
    GateSpec,
    LimitCounts,
    Rate,
    Verdict,
)
from edgefleet.rollout.evidence import alphas, gate
from edgefleet.rollout.evidence.alphas import PROMISED, SHARES, AlphaShare

SPEC = GateSpec()
MOST = 0.06
"""The promise of decision 9 with the default alpha."""


def total(shares: tuple[AlphaShare, ...]) -> float:
    return sum(share.alpha(SPEC) for share in shares)


def test_all_tests_together_err_no_more_often_than_is_promised() -> None:
    assert PROMISED * SPEC.alpha == pytest.approx(MOST)
    assert total(SHARES) <= MOST


def test_one_share_too_many_breaks_the_promise() -> None:
    more = AlphaShare("planted", "a test that was added without room for it", 2.0)
    assert total((*SHARES, more)) > MOST


def test_each_test_is_in_the_table_once() -> None:
    assert len({share.key for share in SHARES}) == len(SHARES)
    named = {one for one in vars(alphas).values() if isinstance(one, AlphaShare)}
    assert named == set(SHARES)


def fails(evidence: Evidence) -> bool:
    said = gate.judge(evidence, SPEC, opened_at=0.0, before=None, now=1.0)
    return said.verdict is Verdict.FAIL


def change(e_value: float) -> Evidence:
    found = Difference(metric="accuracy", pairs=30, mean=0.2, allowed=0.1, e_value=e_value)
    return Evidence(cut=10, healthy=10, exposed=10, quality=(found,))


ONLY_BY: Mapping[str, Evidence] = {
    "FAILURES": Evidence(cut=100, failed=5, healthy=5, offered=90, exposed=10),
    "ENDS": Evidence(cut=11, failed=4, healthy=7, exposed=11),
    "CLASSES": Evidence(
        cut=100, failed=3, healthy=87, exposed=90, class_count=12,
        classes=(ClassRate(key="profile", value="jetson_nano", rate=Rate(bad=3, size=3, allowed=0.05)),),
    ),
    "SILENCE": Evidence(
        cut=1000, failed=12, silent=12, healthy=187, offered=800, exposed=199
    ),
    "LIMITS_SHARE": Evidence(
        cut=100, healthy=20, offered=80, exposed=20, limits=LimitCounts(devices=20, latency=9)
    ),
    "CHANGES_SHARE": change(1e4),
    "LABELS": Evidence(
        cut=100, healthy=20, offered=80, exposed=20,
        quality=(
            Difference(metric="labelled_accuracy", pairs=99, mean=0.03, allowed=0.01, e_value=1e4),
        ),
    ),
}  # fmt: skip
"""By each share, evidence that only its test can refute."""


@pytest.mark.parametrize("name", ONLY_BY)
def test_the_gate_fails_a_release_by_the_share_of_the_table(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert fails(ONLY_BY[name])
    monkeypatch.setattr(alphas, name, replace(getattr(alphas, name), times=1e-200))
    assert not fails(ONLY_BY[name])


def test_a_change_that_is_off_leaves_its_part_to_the_others() -> None:
    on, off = GateSpec(), GateSpec(max_drift=1.0)  # drift is two of the fifteen changes
    assert alphas.changes_log_bar(on) == alphas.CHANGES_SHARE.log_bar(on, 15)
    assert alphas.changes_log_bar(off) == alphas.CHANGES_SHARE.log_bar(off, 13)
    assert alphas.limits_log_bar(on) == alphas.LIMITS_SHARE.log_bar(on, 4)
