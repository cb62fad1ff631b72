"""An open page receives exactly the changed fragments."""

import asyncio
from functools import partial

import msgspec
import pytest

from edgefleet.protocol.rollout import Status
from edgefleet.web import limits
from edgefleet.web.live import Live
from edgefleet.web.pages import Asked, Page, devices_page, rollout_page
from support.asgi import ask_within
from support.fake_reads import FakeReads
from support.scenes import rollout_in
from support.signed_in import signed_in

ROLLOUT = "/rollouts/ro-running"


class Ticking:
    """A clock that advances by ``step_s`` at each reading."""

    def __init__(self, step_s: float) -> None:
        self.at = 0.0
        self.step_s = step_s

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        self.at += self.step_s
        return self.at


def reads_with_a_rollout() -> FakeReads:
    reads = FakeReads()
    reads.put(rollout_in(Status.RUNNING))
    return reads


def view_of(reads: FakeReads) -> partial[Page]:
    return partial(rollout_page, reads, Asked({"rollout": "ro-running"}, {}))


def parsed(message: bytes) -> tuple[str, dict[str, object]]:
    name, data = message.decode().removesuffix("\n\n").split("\n")
    assert name.startswith("event: ")
    assert data.startswith("data: ")
    return name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: "))


def pieces(data: dict[str, object]) -> dict[str, dict[str, str]]:
    return {piece["name"]: piece for piece in data["fragments"]}  # type: ignore[attr-defined]


def test_first_all_pieces_then_only_those_that_changed() -> None:
    async def heard() -> None:
        reads = reads_with_a_rollout()
        stream = Live(Ticking(0.1), interval_s=0.0).stream(ROLLOUT, view_of(reads), list)
        name, first = parsed(await anext(stream))
        assert name == "fragments"
        assert set(pieces(first)) == set(view_of(reads)().parts)
        reads.log("operator", "note", "rollout/ro-running", "something new")
        name, second = parsed(await anext(stream))
        assert set(pieces(second)) == {"audit_lines"}
        assert "something new" in pieces(second)["audit_lines"]["html"]
        await stream.aclose()

    asyncio.run(heard())


def test_without_news_a_stream_says_that_it_is_there() -> None:
    async def heard() -> list[str]:
        stream = Live(Ticking(1.0), interval_s=0.0).stream(
            ROLLOUT, view_of(reads_with_a_rollout()), list
        )
        return [parsed(await anext(stream))[0] for _ in range(3)]

    assert asyncio.run(heard()) == ["fragments", "alive", "alive"]


def test_a_stream_ends_so_that_its_session_is_checked_again() -> None:
    async def heard() -> list[str]:
        live = Live(Ticking(limits.LIVE_STREAM_S / 10), interval_s=0.0)
        return [
            parsed(message)[0]
            async for message in live.stream(ROLLOUT, view_of(reads_with_a_rollout()), list)
        ]

    assert 1 <= len(asyncio.run(heard())) < 10


def test_an_age_is_data_and_not_a_change_of_its_row() -> None:
    async def heard() -> None:
        reads = FakeReads()
        build = partial(devices_page, reads, Asked({}, {}))
        stream = Live(Ticking(1.0), interval_s=0.0).stream("/devices", build, list)
        name, data = parsed(await anext(stream))
        assert name == "fragments"
        assert len(data["last_seen"]) == 50  # type: ignore[arg-type]
        first = reads.device_views[0]
        reads.device_views[0] = msgspec.structs.replace(first, last_seen=reads.now + 9)
        name, data = parsed(await anext(stream))
        assert (name, data["last_seen"]) == ("alive", {first.name: reads.now + 9})
        await stream.aclose()

    asyncio.run(heard())


def test_what_ceased_to_exist_says_so_and_ends() -> None:
    async def heard() -> list[str]:
        reads = reads_with_a_rollout()
        messages = []
        async for message in Live(Ticking(0.1), interval_s=0.0).stream(
            ROLLOUT, view_of(reads), list
        ):
            messages.append(parsed(message)[0])
            reads.rollout_views.clear()
        return messages

    assert asyncio.run(heard()) == ["fragments", "gone"]


def test_viewers_of_one_page_share_its_rendering() -> None:
    built = 0

    def build() -> Page:
        nonlocal built
        built += 1
        return view_of(reads_with_a_rollout())()

    live = Live(Ticking(0.001), interval_s=1.0)
    answers = {live.news(ROLLOUT, build) for _ in range(5)}
    assert built == 1
    assert len({msgspec.json.decode(answer)["title"] for answer in answers}) == 1


def test_a_piece_has_the_version_that_the_page_was_delivered_with() -> None:
    page = signed_in(reads_with_a_rollout())
    news = msgspec.json.decode(page.get(ROLLOUT, accept="application/vnd.edgefleet.news+json").body)
    text = page.get(ROLLOUT).text
    for piece in news["fragments"]:
        assert f'data-part="{piece["name"]}" data-version="{piece["version"]}"' in text


def test_the_stream_comes_over_the_pages_own_address_unbuffered() -> None:
    page = signed_in(reads_with_a_rollout(), interval_s=0.01)

    async def listen() -> None:
        reply = await ask_within(
            page.app, "GET", ROLLOUT, headers=page.headers() | {"accept": "text/event-stream"},
            enough=lambda body: b"\n\n" in body,
        )  # fmt: skip
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["cache-control"] == "no-store"

    asyncio.run(listen())


def test_beyond_the_bound_pages_ask_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIVE_STREAMS", 1)
    page = signed_in(reads_with_a_rollout(), interval_s=0.01)

    async def listen() -> None:
        headers = page.headers() | {"accept": "text/event-stream"}
        heard, leave = asyncio.Event(), asyncio.Event()

        def enough(_: bytes) -> bool:
            heard.set()
            return leave.is_set()

        first = asyncio.create_task(
            ask_within(page.app, "GET", ROLLOUT, headers=headers, enough=enough)
        )
        await heard.wait()
        reply = await ask_within(page.app, "GET", ROLLOUT, headers=headers, enough=bool)
        assert reply.status == 503
        asking = page.headers() | {"accept": "application/vnd.edgefleet.news+json"}
        assert (await ask_within(page.app, "GET", ROLLOUT, headers=asking)).status == 200
        leave.set()
        page.reads.log("operator", "note", "rollout/ro-running", "so that there is news")
        await first
        again = await ask_within(page.app, "GET", ROLLOUT, headers=headers, enough=bool)
        assert again.status == 200

    asyncio.run(listen())
