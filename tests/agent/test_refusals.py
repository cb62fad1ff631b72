"""Refused requests in the telemetry and in the windows of a device."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from edgefleet.agent import limits, telemetry
from edgefleet.agent.quality_window import advance
from edgefleet.agent.state import Mark, Windows
from edgefleet.protocol.device import CheckIn, Scores, Telemetry
from edgefleet.protocol.serving import LiveStats, ModelStatus
from edgefleet.protocol.wire import decode, encode
from support.agent_world import serving_model

EXAMPLE = "clients send `pixels`, release 2 wants `image`"


def status(refusals: Mapping[str, int], requests: int = 0, example: str = EXAMPLE) -> ModelStatus:
    stats = LiveStats(
        requests=requests,
        refused=sum(refusals.values()),
        refusals=dict(refusals),
        refusal_example=example,
    )
    return replace(serving_model("2"), stats=stats)


def folded(*looks: ModelStatus) -> tuple[Telemetry, ...]:
    mark: Mark | None = None
    tallies: tuple[Telemetry, ...] = ()
    for own in looks:
        grown = telemetry.growth(mark, 1, own)
        tallies, mark = telemetry.fold(tallies, 1, own, grown)
    return tallies


def test_a_release_that_refused_every_request_is_reported() -> None:
    (tally,) = folded(status({"shape": 3}), status({"shape": 3, "unknown_input": 9}))
    assert (tally.requests, tally.refused, tally.asked) == (0, 12, 12)
    assert tally.refusals == {"shape": 3, "unknown_input": 9}
    assert tally.refusal_example == EXAMPLE


def test_what_was_acknowledged_is_not_reported_again() -> None:
    sent = folded(status({"shape": 3}))
    later = folded(status({"shape": 3}), status({"shape": 5, "version": 1}))
    (left,) = telemetry.subtract(later, sent[0])
    assert (left.refused, left.refusals) == (3, {"shape": 2, "version": 1})
    assert telemetry.subtract(sent, sent[0]) == ()


def test_counters_that_began_again_are_counted_from_zero() -> None:
    (tally,) = folded(status({"shape": 30}), status({"shape": 4}))
    assert tally.refused == 34


def test_a_report_without_refusals_has_no_bytes_of_them() -> None:
    (tally,) = folded(status({}, requests=5, example=""))
    text = encode(CheckIn(protocol=3, seq=1, telemetry=tally))
    assert b"refus" not in text
    assert decode(text, CheckIn).telemetry == tally


def scores_after(refused: int, requests: int, *, looks: int = 14) -> Scores | None:
    """The scores of a release that is asked so often every ten seconds, after one that answered."""
    windows, now = Windows(), 0.0
    windows = advance(windows, serving_model("1"), LiveStats(), now)
    windows = advance(windows, serving_model("1"), LiveStats(requests=100), now + 5.0)
    for look in range(looks):
        grown = LiveStats(requests=requests, refused=refused)
        windows = advance(windows, serving_model("2"), grown, 10.0 * (look + 1))
    return windows.scores


def test_a_window_of_refused_requests_alone_says_so() -> None:
    scores = scores_after(refused=20, requests=0)
    assert scores is not None
    assert (scores.from_release, scores.to_release) == ("1", "2")
    assert (scores.refusal_rate_delta, scores.refusal_rate, scores.asked) == (1.0, 1.0, 100)
    assert scores.request_rate_change == -1.0
    assert scores.error_rate_delta is None


def test_a_share_of_refused_requests_is_in_the_scores_of_a_full_window() -> None:
    scores = scores_after(refused=5, requests=15)
    assert scores is not None
    assert scores.refusal_rate_delta == pytest.approx(0.25)
    assert scores.error_rate_delta == 0.0


def test_refused_requests_alone_need_the_time_of_a_window() -> None:
    assert scores_after(refused=20, requests=0, looks=int(limits.WINDOW_S / 10)) is None
