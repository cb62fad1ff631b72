"""``edgefleet events`` and ``edgefleet hook``."""

import pytest

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.events import follow_events, read_events
from edgefleet.client.hub import HubClient
from edgefleet.protocol.events import Event, EventPage
from edgefleet.protocol.hooks import (
    AddHook,
    CreatedHook,
    DeadLetter,
    DeadLetters,
    Hooks,
    HookView,
    Replayed,
    ReplayLetters,
)
from edgefleet.protocol.operator import AuditEntry, AuditPage
from edgefleet.protocol.wire import decode, encode
from support.canned_hub import TOKEN, CannedHub
from support.command_line import CommandLine

FREEZE = Event(id=8, at=0.0, kind="fleet.freeze", about="fleet", actor="ada", detail="storm")
HALT = Event(id=9, at=60.0, kind="rollout.halt", about="rollout/ro-1", actor="gate")
HOOK = HookView(
    id="3f9a", url="https://ci/", kinds=("rollout.*",), created_at=1.0, position=7, behind=2,
    dead_letters=1, failure="The answer had the status 500.",
)  # fmt: skip


def stream(*events: Event, last: int) -> bytes:
    texts = [b"retry: 2000\nid: 0\n\n"]
    texts += [b"id: %d\nevent: x\ndata: %s\n\n" % (one.id, encode(one)) for one in events]
    return b"".join([*texts, b": heartbeat\nid: %d\n\n" % last])


def test_the_newest_events_are_listed(fleet: CommandLine, canned: CannedHub) -> None:
    newest = AuditEntry(id=60, at=0.0, actor="ada", action="x", about="fleet", detail="")
    canned.put("GET", "/api/v1/audit", AuditPage(entries=(newest,)))
    canned.put("GET", "/api/v1/events", stream(FREEZE, HALT, last=60))
    said = fleet("events", "--kind", "fleet.*")
    assert said.exit == 0, said.err
    assert said.out.splitlines() == [
        "8  1970-01-01 00:00:00  fleet.freeze  fleet  ada  storm",
        "9  1970-01-01 00:01:00  rollout.halt  rollout/ro-1  gate",
    ]
    assert canned.asked[-1].query == "after=10&kind=fleet.%2A&follow=false"
    said = fleet("events", "--after", "7", "--json")
    assert decode(said.out.encode(), EventPage) == EventPage(events=(FREEZE, HALT), last=60)


def test_a_reader_goes_on_where_it_was(canned: CannedHub) -> None:
    """The connection ends after each answer of the canned hub."""
    gone = OperatorError("events_gone", "The log begins after 70.")
    canned.put("GET", "/api/v1/events", stream(FREEZE, last=8), stream(HALT, last=60), 503, gone)
    slept: list[float] = []
    found = follow_events(HubClient(canned.url, TOKEN), sleep=slept.append)
    assert [next(found), next(found)] == [FREEZE, HALT]
    with pytest.raises(OperatorError, match=r"events_gone|begins after 70"):
        next(found)
    assert [asked.query for asked in canned.asked] == ["", "after=8", "after=60", "after=60"]
    assert len(slept) == 3


def test_pieces_of_a_stream_may_end_anywhere() -> None:
    text = stream(FREEZE, HALT, last=60)
    whole = list(read_events([text]))
    assert [one.id for one in whole] == [0, 8, 9, 60]
    assert list(read_events(text[n : n + 1] for n in range(len(text)))) == whole
    with pytest.raises(NetworkError, match="too long"):
        list(read_events([b"x" * (2 << 20)]))


def test_hooks_are_added_listed_and_replayed(fleet: CommandLine, canned: CannedHub) -> None:
    canned.put("POST", "/api/v1/hooks", CreatedHook(secret="s3cret", view=HOOK))
    said = fleet("hook", "add", "https://ci/", "--kind", "rollout.*")
    assert said.out.splitlines() == ["3f9a", "s3cret"]
    assert decode(canned.asked[-1].body, AddHook).kinds == ("rollout.*",)
    canned.put("GET", "/api/v1/hooks", Hooks(hooks=(HOOK,)))
    said = fleet("hook", "list")
    assert "The answer had the status 500." in said.out
    letter = DeadLetter(number=4, event=HALT, at=1.0, attempts=10, reason="No answer")
    canned.put("GET", "/api/v1/hooks/3f9a/dead-letters", DeadLetters(letters=(letter,)))
    assert "rollout.halt" in fleet("hook", "dead", "3f9a").out
    canned.put(
        "POST",
        "/api/v1/hooks/3f9a/replay",
        Replayed(delivered=1, failed=0),
        Replayed(delivered=0, failed=2, reason="No answer."),
    )
    said = fleet("hook", "replay", "3f9a", "4")
    assert (said.exit, said.out) == (0, "1 letter delivered.\n")
    assert decode(canned.asked[-1].body, ReplayLetters).numbers == (4,)
    said = fleet("hook", "replay", "3f9a")
    assert (said.exit, said.out) == (1, "0 letters delivered. 2 letters left. No answer.\n")
