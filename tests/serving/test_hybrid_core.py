"""The pure parts of hybrid inference: policy, budget, circuit breaker and answers."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.base.errors import NetworkError
from edgefleet.protocol.fallback import BudgetLimits, When
from edgefleet.serving.hybrid.answer import reply_of
from edgefleet.serving.hybrid.breaker import Breaker
from edgefleet.serving.hybrid.budget import Budget, Window
from edgefleet.serving.hybrid.policy import (
    SENTENCES,
    Event,
    Outcome,
    event_of_error,
    hedge_delay_s,
    is_unsure,
)
from edgefleet.serving.hybrid.question import may_forward
from edgefleet.serving.limits import (
    FALLBACK_BACKOFF_S,
    FALLBACK_BURST,
    FALLBACK_FAILURES,
    FALLBACK_LEARNT,
    FALLBACK_MOST_BACKOFF_S,
)

ALL = When(overload=True, missing=True, error=True, confidence=0.5, hedge="p95")
NONE = When()


@pytest.mark.parametrize(
    ("code", "is_served", "event"),
    [
        ("overloaded", True, Event.OVERLOAD),
        ("inference_failed", True, Event.ERROR),
        ("not_ready", False, Event.MISSING),
        ("not_found", False, Event.MISSING),
        ("not_found", True, None),  # another version: the client named one that is not here
        ("bad_request", True, None),
        ("bad_request", False, None),
        ("timeout", True, None),  # the answer is of no use any more
    ],
)
def test_an_error_is_an_event_if_the_policy_names_it(
    code: str, is_served: bool, event: Event | None
) -> None:
    assert event_of_error(ALL, code, is_served=is_served) is event
    assert event_of_error(NONE, code, is_served=is_served) is None


@pytest.mark.parametrize(
    ("confidence", "unsure"),
    [(0.49, True), (0.5, False), (0.9, False), (math.nan, True), (None, False)],
)
def test_an_answer_below_the_limit_is_unsure(confidence: float | None, unsure: bool) -> None:
    assert is_unsure(ALL, confidence) is unsure
    assert not is_unsure(NONE, confidence)


def test_a_percentile_is_believed_once_it_is_known() -> None:
    def quantile_us(share: float) -> int:
        return {0.95: 20_000, 0.99: 80_000}[share]

    assert hedge_delay_s(ALL, FALLBACK_LEARNT - 1, quantile_us) is None
    assert hedge_delay_s(ALL, FALLBACK_LEARNT, quantile_us) == 0.02
    assert hedge_delay_s(When(hedge="p99"), FALLBACK_LEARNT, quantile_us) == 0.08
    assert hedge_delay_s(When(hedge=0.3), 0, quantile_us) == 0.3
    assert hedge_delay_s(NONE, FALLBACK_LEARNT, quantile_us) is None


def test_each_outcome_without_an_answer_has_a_sentence() -> None:
    assert set(Outcome) - set(SENTENCES) == {Outcome.ANSWERED, Outcome.LOCAL_FIRST}


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 5)), max_size=200),
    st.integers(1, 40),
)
def test_a_window_never_forgets_early(steps: list[tuple[float, int]], late: int) -> None:
    window, now, counts = Window(60.0), 0.0, []
    for pause_s, count in steps:
        now += pause_s
        window.add(now, count)
        counts.append((now, count))
    now += late
    at_least = sum(count for at, count in counts if at > now - 60)
    at_most = sum(count for at, count in counts if at > now - 62)
    assert at_least <= window.total(now) <= at_most


def limits(share: float = 1.0, per_minute: int = 1000, bytes_per_day: int = 10**9) -> BudgetLimits:
    return BudgetLimits(share=share, per_minute=per_minute, bytes_per_day=bytes_per_day)


@given(st.integers(1, 100), st.integers(0, 2000))
def test_no_more_than_the_share_is_forwarded(percent: int, requests: int) -> None:
    budget, forwarded = Budget(limits(share=percent / 100, per_minute=10**9)), 0
    for _ in range(requests):
        budget.came()
        if budget.spent(0.0, 1) is None:
            budget.use(0.0, 1)
            forwarded += 1
    most = percent / 100 * requests + FALLBACK_BURST
    assert min(requests, most - 2) <= forwarded <= min(requests, most) + 1e-6


def test_the_share_is_not_saved_up() -> None:
    budget = Budget(limits(share=0.5))
    for _ in range(10_000):
        budget.came()
    used = 0
    while budget.spent(0.0, 1) is None:
        budget.use(0.0, 1)
        used += 1
    assert used == FALLBACK_BURST


def test_requests_a_minute_and_bytes_a_day_are_limits() -> None:
    budget = Budget(limits(per_minute=2, bytes_per_day=100))
    budget.use(0.0, 10)
    budget.use(1.0, 10)
    assert budget.spent(59.0, 1) == "budget_minute"
    assert budget.spent(63.0, 80) is None
    assert budget.spent(63.0, 81) == "budget_bytes"
    assert budget.receive(63.0, 80)
    assert not budget.receive(63.0, 1), "the answer may not exceed it either"
    assert budget.spent(80_000.0, 1) == "budget_bytes"
    assert budget.spent(90_000.0, 100) is None


def test_the_breaker_opens_after_failures_in_a_row_and_backs_off() -> None:
    breaker = Breaker()
    for _ in range(5):  # a success between them
        assert breaker.allows(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    for number in range(FALLBACK_FAILURES):
        assert breaker.allows(0.0), number
        breaker.failed(0.0)
    now, backoff_s = 0.0, FALLBACK_BACKOFF_S
    for _ in range(12):
        assert breaker.state(now) == "open"
        assert not breaker.allows(now + 0.99 * backoff_s)
        now += backoff_s
        assert breaker.state(now) == "half_open"
        assert breaker.allows(now)
        assert not breaker.allows(now), "one request tries"
        breaker.failed(now)
        backoff_s = min(FALLBACK_MOST_BACKOFF_S, 2 * backoff_s)
    assert backoff_s == FALLBACK_MOST_BACKOFF_S
    now += backoff_s
    assert breaker.allows(now)
    breaker.dropped()
    assert breaker.allows(now), "a dropped try is no evidence"
    breaker.succeeded()
    assert breaker.state(now) == "closed"
    assert breaker.allows(now)


def test_a_late_failure_does_not_lengthen_the_back_off() -> None:
    breaker = Breaker()
    for _ in range(FALLBACK_FAILURES + 4):  # all were sent before the breaker opened
        breaker.failed(0.0)
    assert breaker.state(FALLBACK_BACKOFF_S) == "half_open"


def test_an_answer_says_that_the_fallback_gave_it() -> None:
    body = b'{"model_name":"m","outputs":[{"name":"a","data":[1.50]}],"parameters":{"x":1}}'
    reply = reply_of("/v2/models/m/infer", {}, body, Event.OVERLOAD)
    assert b'"data":[1.50]' in reply.body, "numbers are as the fallback wrote them"
    assert json.loads(reply.body)["parameters"] == {
        "x": 1, "answered_by": "fallback", "fallback_reason": "overload",
    }  # fmt: skip


def test_the_tensors_of_a_binary_answer_stay_behind_its_json() -> None:
    head, tensors = b'{"outputs":[{"name":"a"}]}', b"\x00\x01{}\xff"
    length = {b"inference-header-content-length": str(len(head)).encode()}
    reply = reply_of("/v2/models/m/infer", length, head + tensors, Event.HEDGE)
    (name, size), *_ = reply.headers
    assert name == "Inference-Header-Content-Length"
    assert json.loads(reply.body[: int(size)])["parameters"]["answered_by"] == "fallback"
    assert reply.body[int(size) :] == tensors


@pytest.mark.parametrize(
    "body", [b'{"predictions": [NaN, 1]}', b'{"outputs": 1}', b'{"result": {}}', b'{"results":[]}']
)
def test_an_answer_of_tensorflow_serving_is_passed_on_as_it_is(body: bytes) -> None:
    assert reply_of("/v1/models/m:predict", {}, body, Event.MISSING).body == body


@pytest.mark.parametrize(
    ("path", "length", "body"),
    [
        ("/v2/models/m/infer", None, b"<html>"),
        ("/v2/models/m/infer", None, b"[]"),
        ("/v2/models/m/infer", None, b"{}"),
        ("/v2/models/m/infer", None, b'{"outputs": {}}'),
        ("/v2/models/m/infer", None, b'{"outputs": [], "parameters": 1}'),
        ("/v2/models/m/infer", None, b'{"a":' * 5000),
        ("/v2/models/m/infer", b"99", b'{"outputs": []}'),
        ("/v2/models/m/infer", b"-1", b'{"outputs": []}'),
        ("/v1/models/m:predict", None, b'{"error": "NaN"}'),
        ("/v1/models/m:predict", None, b"NaN"),
        ("/v1/models/m:predict", None, b'["predictions"]'),
        ("/v1/models/m:predict", None, b"\xff"),
    ],
)
def test_another_answer_is_malformed(path: str, length: bytes | None, body: bytes) -> None:
    headers = {} if length is None else {b"inference-header-content-length": length}
    with pytest.raises(NetworkError, match="answer_malformed"):
        reply_of(path, headers, body, Event.MISSING)


@pytest.mark.parametrize(
    ("path", "headers", "forwarded"),
    [
        ("/v2/models/m/infer", {}, True),
        ("/v1/models/m:predict", {}, True),
        ("/v2/models/m/infer", {b"edgefleet-hop": b"1"}, False),
        ("/v2/models/../infer", {}, False),
        ("/v2/models/./infer", {}, False),
        ("/v2/models//infer", {}, False),
    ],
)
def test_a_forwarded_request_and_a_path_with_dots_stay_here(
    path: str, headers: dict[bytes, bytes], forwarded: bool
) -> None:
    assert may_forward(headers, path.split("/")[1:]) is forwarded
