"""The quota of a client: so many requests a second, some of them at once."""

import contextlib

import pytest

from edgefleet.serving.client_quota import CLIENTS, ClientQuota, OverQuota


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def allowed(quota: ClientQuota, peer: str, requests: int) -> int:
    """The requests that were allowed."""
    taken = 0
    for _ in range(requests):
        with contextlib.suppress(OverQuota):
            quota.consume(peer)
            taken += 1
    return taken


def test_a_client_gets_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    quota = ClientQuota(8, 4, clock=clock)
    assert allowed(quota, "a", 10) == 4
    clock.now += 0.3125
    assert allowed(quota, "a", 10) == 2, "2.5 have come"
    clock.now += 0.0625
    assert allowed(quota, "a", 10) == 1, "the half was kept"
    clock.now += 3600
    assert allowed(quota, "a", 10) == 4, "never more than the burst"
    assert quota.refused == {"client_quota": 6 + 8 + 9 + 6}


def test_another_client_is_not_affected() -> None:
    quota = ClientQuota(5, clock=Clock())
    assert allowed(quota, "a", 9) == 5
    assert allowed(quota, "b", 9) == 5


def test_the_refusal_says_when_the_next_request_is_allowed() -> None:
    clock = Clock()
    quota = ClientQuota(4, 1, clock=clock)
    quota.consume("a")
    clock.now = 0.1
    with pytest.raises(OverQuota) as refused:
        quota.consume("a")
    assert (refused.value.code, refused.value.status) == ("over_quota", 429)
    assert refused.value.retry_after_s == pytest.approx(0.15)
    clock.now += refused.value.retry_after_s
    quota.consume("a")


def test_a_rate_of_zero_is_no_quota() -> None:
    assert allowed(ClientQuota(0), "a", 1000) == 1000


def test_many_addresses_take_bounded_memory() -> None:
    quota = ClientQuota(1, clock=Clock())
    for number in range(CLIENTS + 100):
        quota.consume(f"10.0.{number >> 8}.{number & 255}")
    assert quota.clients == CLIENTS
