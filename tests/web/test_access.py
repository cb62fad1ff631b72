"""The page needs a session with the permission, and other sites cannot send its forms (CSRF)."""

import asyncio
import gzip
from base64 import b64encode

import pytest

from edgefleet.base.entropy import SeededEntropy
from edgefleet.hub.login_attempts import TooManyLogins
from edgefleet.protocol.people import Role
from edgefleet.protocol.rollout import Status, Verb
from edgefleet.protocol.wire import Problem, decode
from edgefleet.web.limits import FORM_BYTES
from edgefleet.web.pages import PAGES
from edgefleet.web.session import form_token, form_token_valid
from support.asgi import ask_within
from support.fake_reads import TOKEN, FakeReads
from support.scenes import rollout_in
from support.signed_in import SignedIn, signed_in

ADDRESSES = [
    path.format(rollout="ro-completed", device="lyon-0000", model="digits", release="3")
    for path, _ in PAGES
]


class SetClock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_session_every_page_is_the_login_form(address: str) -> None:
    reply = SignedIn(FakeReads()).get(address)
    assert reply.status == 401
    assert 'name="secret"' in reply.text
    assert "digits" not in reply.text.replace(address, "")


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_session_the_twin_is_a_problem(address: str) -> None:
    reply = SignedIn(FakeReads()).get(f"{address}.json")
    assert reply.status == 401
    assert decode(reply.body, Problem).code == "unauthenticated"


def test_an_unknown_address_is_a_page_for_people_and_a_problem_for_programs() -> None:
    page = signed_in()
    reply = page.get("/nosuch", accept="text/html,*/*")
    assert reply.status == 404
    assert reply.headers["content-type"].startswith("text/html")
    assert "There is no page /nosuch." in reply.text
    assert 'href="/devices"' in reply.text
    assert "/devices" not in SignedIn(FakeReads()).get("/nosuch", accept="text/html").text
    for target, accept in (("/nosuch", "application/json"), ("/api/v1/nosuch", "text/html")):
        assert page.get(target, accept=accept).status == 404
        assert "<html" not in page.get(target, accept=accept).text


def test_pages_are_compressed_for_browsers_that_can_read_them() -> None:
    page = signed_in(clock=SetClock())  # the time is in the page
    plain = page.get("/devices")
    packed = page.get("/devices", **{"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert len(packed.body) < len(plain.body) / 4
    assert len(gzip.decompress(packed.body)) == len(plain.body)  # only the masks of tokens differ


def test_a_form_token_is_masked_and_each_mask_is_valid() -> None:
    page = signed_in()
    tokens = {page.form_token() for _ in range(3)}
    assert len(tokens) == 3
    for token in tokens:
        page.post("/fleet/freeze", {"form_token": token, "note-freeze": "night"})
        assert page.reads.freeze_said.frozen
        assert page.reads.freeze_said.note == "night"
        page.post("/fleet/thaw", {"form_token": token})
        assert not page.reads.freeze_said.frozen


def test_without_a_session_there_is_no_stream() -> None:
    reply = SignedIn(FakeReads()).get("/", accept="text/event-stream")
    assert reply.status == 401
    assert not reply.headers["content-type"].startswith("text/event-stream")


def test_the_cookie_is_kept_from_scripts_and_from_other_sites_and_is_not_the_token() -> None:
    page = SignedIn(FakeReads())
    reply = page.sign_in()
    assert (reply.status, reply.headers["location"]) == (303, "/devices")
    flags = {flag.strip().lower() for flag in reply.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=lax", "path=/", "max-age=3600"} <= flags
    assert TOKEN not in reply.headers["set-cookie"]
    assert b64encode(TOKEN.encode()).decode() not in reply.headers["set-cookie"]
    assert page.get("/").status == 200


def test_a_token_in_an_address_opens_nothing() -> None:
    page = SignedIn(FakeReads())
    reply = page.get(f"/devices?token={TOKEN}")
    assert reply.status == 401
    assert "set-cookie" not in reply.headers


def test_a_link_opens_a_session_once_and_a_browser_that_looks_ahead_does_not_use_it_up() -> None:
    page = SignedIn(FakeReads())
    ahead = page.get("/login?code=once", **{"sec-purpose": "prefetch;prerender"})
    assert (ahead.status, "set-cookie" in ahead.headers) == (401, False)
    reply = page.get("/login?code=once")
    assert (reply.status, reply.headers["location"]) == (303, "/")
    assert "httponly" in reply.headers["set-cookie"].lower()
    again = page.get("/login?code=once")
    assert (again.status, "set-cookie" in again.headers) == (401, False)


@pytest.mark.parametrize("token", ["", "guess", TOKEN + "x", TOKEN[:-1], "ünïcode"])
def test_a_wrong_token_opens_nothing(token: str) -> None:
    page = SignedIn(FakeReads())
    reply = page.sign_in(token)
    assert reply.status == 401
    assert "set-cookie" not in reply.headers


def test_the_pause_after_too_many_logins_is_in_the_answer() -> None:
    page = SignedIn(FakeReads())
    page.reads.logins.refusal = TooManyLogins(41.2)
    reply = page.sign_in()
    assert (reply.status, reply.headers["retry-after"]) == (429, "42")
    assert "Too many logins" in reply.text


@pytest.mark.parametrize(
    "place",
    ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere", "x", "/a\r\nb: c"],
)
def test_signing_in_leads_nowhere_else(place: str) -> None:
    page = SignedIn(FakeReads())
    assert (
        page.post("/login", {"name": "operator", "secret": TOKEN, "next": place}).headers[
            "location"
        ]
        == "/"
    )


def test_the_form_token_of_another_session_is_not_valid() -> None:
    entropy = SeededEntropy(1)
    assert form_token_valid("one", form_token("one", entropy))
    assert not form_token_valid("two", form_token("one", entropy))
    assert not form_token_valid("", "")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://hub:8400", "host": "hub:8400"}, 303),
        ({"origin": "https://hub:8400", "host": "hub:8400"}, 303),  # a proxy ends TLS
        ({"origin": "http://elsewhere.example", "host": "hub:8400"}, 403),
        ({"origin": "null", "host": "hub:8400"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 303),
    ],
)
def test_a_form_of_another_origin_is_refused(headers: dict[str, str], status: int) -> None:
    page = running()
    fields = {"form_token": page.form_token(), "generation": "7"}
    assert page.post("/rollouts/ro-running/pause", fields, **headers).status == status
    assert len(page.reads.commands) == (status == 303)
    fresh = {"name": "operator", "secret": TOKEN, "next": "/"}
    assert SignedIn(FakeReads()).post("/login", fresh, **headers).status == status


def test_a_stream_ends_with_its_session() -> None:
    page = signed_in(running().reads, interval_s=0.0)

    async def listen() -> bytes:
        def enough(heard: bytes) -> bool:
            if b"event: fragments" in heard:
                page.reads.logins.sessions.clear()
            return b"event: gone" in heard

        headers = page.headers() | {"accept": "text/event-stream"}
        reply = await ask_within(
            page.app, "GET", "/rollouts/ro-running", headers=headers, enough=enough
        )
        return reply.body

    assert b"No valid session." in asyncio.run(listen())


def as_user(role: Role) -> SignedIn:
    page = SignedIn(running().reads)
    page.reads.logins.add("ada", role)
    page.sign_in("ada", "ada")
    return page


def test_a_viewer_sees_no_buttons_and_cannot_use_them() -> None:
    page = as_user(Role.VIEWER)
    assert "ada (viewer)" in page.get("/").text
    assert "Yes, pause" not in page.get("/rollouts/ro-running").text
    assert "Yes, freeze" not in page.get("/").text
    fields = {"form_token": page.form_token()}
    for path in ("/rollouts/ro-running/pause", "/rollouts/ro-running/approve", "/fleet/freeze"):
        reply = page.post(path, fields)
        assert reply.status == 403, path
        assert "ada has the role viewer" in reply.text
    assert (page.reads.commands, page.reads.approved) == ([], [])
    assert not page.reads.freeze_said.frozen


def test_a_user_approves_by_the_own_name_whatever_the_form_says() -> None:
    page = as_user(Role.APPROVER)
    fields = {"form_token": page.form_token(), "person": "bob"}
    assert page.post("/rollouts/ro-running/approve", fields).status == 303
    assert page.reads.approved == [("ro-running", "ada")]


def running() -> SignedIn:
    reads = FakeReads()
    reads.put(rollout_in(Status.RUNNING))
    return signed_in(reads)


@pytest.mark.parametrize("form_token", ["", "0" * 64, "é"])
def test_a_verb_without_the_form_token_of_this_session_is_refused(form_token: str) -> None:
    page = running()
    reply = page.post("/rollouts/ro-running/pause", {"form_token": form_token})
    assert reply.status == 403
    assert "form_stale" in reply.text
    assert page.reads.commands == []


def test_the_form_token_of_another_session_is_refused() -> None:
    page = running()
    other = signed_in(page.reads)
    reply = page.post("/rollouts/ro-running/pause", {"form_token": other.form_token()})
    assert reply.status == 403
    assert page.reads.commands == []


def test_a_verb_without_a_session_is_the_login_form() -> None:
    page = running()
    form_token, page.cookie = page.form_token(), ""
    assert page.post("/rollouts/ro-running/pause", {"form_token": form_token}).status == 401
    assert page.reads.commands == []


def test_a_verb_reaches_the_hub_with_the_generation_that_was_looked_at() -> None:
    page = running()
    fields = {"form_token": page.form_token(), "generation": "7", "note-pause": "looks odd"}
    reply = page.post("/rollouts/ro-running/pause", fields)
    assert (reply.status, reply.headers["location"]) == (303, "/rollouts/ro-running")
    [(rollout, verb, command, by)] = page.reads.commands
    assert (rollout, verb, by.name) == ("ro-running", Verb.PAUSE, "operator")
    assert (command.generation, command.note) == (7, "looks odd")


def test_a_verb_that_does_not_exist_is_not_found() -> None:
    page = running()
    assert (
        page.post("/rollouts/ro-running/explode", {"form_token": page.form_token()}).status == 404
    )


def test_a_verb_is_given_with_post_only() -> None:
    assert running().get("/rollouts/ro-running/pause").status in {404, 405}


def test_a_form_without_end_is_refused() -> None:
    page = running()
    reply = page.post("/rollouts/ro-running/pause", {"form_token": "x" * (FORM_BYTES + 1)})
    assert reply.status == 413
    assert SignedIn(FakeReads()).post("/login", {"secret": "x" * (FORM_BYTES + 1)}).status == 413


def test_signing_out_needs_the_form_and_forgets_the_cookie() -> None:
    page = signed_in()
    assert "set-cookie" not in page.post("/logout", {}).headers
    reply = page.post("/logout", {"form_token": page.form_token()})
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert page.get("/").status == 401  # the browser may keep the cookie: the session has ended


def test_no_page_lets_scripts_or_styles_stand_in_it() -> None:
    page = signed_in()
    for reply in (
        page.get("/"),
        page.get("/nothing.json"),
        SignedIn(FakeReads()).get("/"),
        page.get("/devices/none"),
    ):
        if reply.headers["content-type"].startswith("text/html"):
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["cache-control"] == "no-store"
            assert " style=" not in reply.text
            assert " onclick" not in reply.text
