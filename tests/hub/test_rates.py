"""Each user has a rate, and clients without a valid token have one for each address."""

import asyncio
from pathlib import Path

import pytest

from edgefleet.hub.api import create_app
from edgefleet.hub.rates import Rate, TooManyRequests
from edgefleet.protocol.people import AddUser, CreateToken, Role
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.asgi import Reply, ask_within
from support.hub_inside import ManualClock, hub_inside


def taken(buckets: Rate, key: str, most: int = 1_000) -> int:
    """How many tokens there are."""
    for count in range(most):
        try:
            buckets.consume(key, key)
        except TooManyRequests:
            return count
    return most


def test_a_bucket_has_a_burst_and_then_its_rate() -> None:
    clock = ManualClock()
    buckets = Rate(clock, 2.0)
    assert taken(buckets, "ada") == 10  # 5 s
    with pytest.raises(TooManyRequests) as caught:
        buckets.consume("ada", "ada")
    assert (caught.value.status, caught.value.retry_after_s) == (429, pytest.approx(0.5))
    clock.time += 3
    assert taken(buckets, "ada") == 6
    clock.time += 1_000
    assert taken(buckets, "ada") == 10
    assert taken(buckets, "bob") == 10


def test_the_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.hub.rates.BUCKETS", 2)
    buckets = Rate(ManualClock(), 1.0)
    for key in ("a", "b", "a", "c"):  # b was used longest ago
        buckets.consume(key, key)
    assert (taken(buckets, "a"), taken(buckets, "b")) == (3, 5)


def test_a_rate_is_that_of_one_user_alone(tmp_path: Path) -> None:
    async def main() -> None:
        data = tmp_path / "data"
        async with hub_inside(data, ManualClock(), operator_requests_per_s=1.0) as hub:
            await hub.people.add_user(AddUser(name="ada", role=Role.VIEWER), OPERATOR_TOKEN)
            tokens = [
                (await hub.people.create_token(CreateToken(user="ada"), OPERATOR_TOKEN)).token
                for _ in range(2)
            ]
            tokens.append((data / "operator.token").read_text().strip())
            app = create_app(hub)

            async def ask(token: str) -> Reply:
                headers = {"authorization": f"Bearer {token}"}
                return await ask_within(app, "GET", "/api/v1/fleet", headers=headers)

            found = [(await ask(tokens[number % 2])).status for number in range(6)]
            assert found == [200] * 5 + [429]  # both tokens are of one user
            assert (await ask(tokens[2])).status == 200
            late = await ask(tokens[0])
            assert late.headers["retry-after"] == "1"
            assert decode(late.body, Problem).code == "too_many_requests"
            wrong = [(await ask("ef_none")).status for _ in range(101)]
            assert wrong == [401] * 100 + [429]
            assert (await ask(tokens[2])).status == 200  # from the same address

    asyncio.run(main())
