"""The hub is killed while events are read and delivered: none is lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgefleet.client.events import follow_events
from edgefleet.protocol.events import Event
from edgefleet.protocol.hooks import AddHook
from edgefleet.protocol.rollout import Freeze
from edgefleet.protocol.wire import decode
from support.hub_process import HubProcess, running_hub

KILLS, EVENTS = 4, 10


@contextmanager
def receiver(found: list[Event], enough: threading.Event, last: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = decode(self.rfile.read(int(self.headers["Content-Length"])), Event)
            found.append(event)
            self.send_response(204)
            self.end_headers()
            if event.detail == last:
                enough.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def follow(hub: HubProcess, found: list[Event], enough: threading.Event, last: str) -> None:
    for event in follow_events(hub.client(), after=0):
        found.append(event)
        if event.detail == last:
            enough.set()
            return


@pytest.mark.long
def test_no_event_is_lost_when_the_hub_is_killed(tmp_path: Path) -> None:
    last = f"n{KILLS * EVENTS - 1}"
    read: list[Event] = []
    delivered: list[Event] = []
    have_read, have_got = threading.Event(), threading.Event()
    flag = "import sys; sys.argv.append('--allow-local-hooks')"
    with (
        receiver(delivered, have_got, last) as url,
        running_hub(tmp_path / "data", fault=flag) as hub,
    ):
        hub.client().hooks.add(AddHook(url=url, kinds=("fleet.*",)))
        reader = threading.Thread(target=follow, args=(hub, read, have_read, last), daemon=True)
        reader.start()
        acknowledged = []
        for number in range(KILLS * EVENTS):
            if number % EVENTS == EVENTS - 1 and number != KILLS * EVENTS - 1:
                hub.kill()
                hub.start()
            acknowledged.append(f"n{number}")
            hub.client().freeze(Freeze(frozen=True, note=acknowledged[-1]))
        assert have_read.wait(60)
        assert have_got.wait(60)
    ids = [event.id for event in read]
    assert ids == list(range(1, len(ids) + 1))  # each once, in order, without a gap
    assert [one.detail for one in read if one.kind == "fleet.freeze"] == acknowledged
    once = list(dict.fromkeys(event.detail for event in delivered))
    assert once == acknowledged  # at least once, and in order
