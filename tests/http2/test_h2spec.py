"""The listener passes h2spec in strict mode. A listener with a planted fault does not."""

import pytest

from edgefleet.http2.connection import ServerConnection
from support.h2spec import conformance
from support.http2_server import running

CASES = 146


@pytest.mark.long
def test_the_listener_conforms_to_the_protocol() -> None:
    with running() as listener:
        ran, passed, text = conformance(listener.port)
    assert (ran, passed) == (CASES, CASES), text


@pytest.mark.long
def test_h2spec_finds_a_window_that_is_never_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerConnection, "on_window_update", lambda *_: None)
    with running() as listener:
        ran, passed, text = conformance(listener.port, "http2/6.9", wait_s=1)
    assert passed < ran, text
