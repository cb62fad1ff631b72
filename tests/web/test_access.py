"""The page needs the operator's token, and other sites cannot send its forms (CSRF)."""

import gzip
from base64 import b64encode

import pytest

from edgefleet.base.entropy import SeededEntropy
from edgefleet.protocol.rollout import Status, Verb
from edgefleet.protocol.wire import Problem, decode
from edgefleet.web.limits import FORM_BYTES, SESSION_S
from edgefleet.web.pages import PAGES
from edgefleet.web.session import Sessions
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
    assert 'name="token"' in reply.text
    assert "digits" not in reply.text.replace(address, "")


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_session_the_twin_is_a_problem(address: str) -> None:
    reply = SignedIn(FakeReads()).get(f"{address}.json")
    assert reply.status == 401
    assert decode(reply.body, Problem).code == "not_authorized"


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
    assert {"httponly", "samesite=strict", "path=/", f"max-age={SESSION_S}"} <= flags
    assert TOKEN not in reply.headers["set-cookie"]
    assert b64encode(TOKEN.encode()).decode() not in reply.headers["set-cookie"]
    assert page.get("/").status == 200


def test_a_link_with_the_token_signs_in_and_takes_the_token_out_of_the_address() -> None:
    page = SignedIn(FakeReads())
    reply = page.get(f"/devices?selector=site%3Dlyon&token={TOKEN}")
    assert (reply.status, reply.headers["location"]) == (303, "/devices?selector=site%3Dlyon")
    assert "httponly" in reply.headers["set-cookie"].lower()


@pytest.mark.parametrize("token", ["", "guess", TOKEN + "x", TOKEN[:-1], "ünïcode"])
def test_a_wrong_token_opens_nothing(token: str) -> None:
    page = SignedIn(FakeReads())
    reply = page.sign_in(token)
    assert reply.status == 401
    assert "set-cookie" not in reply.headers
    assert page.get(f"/?token={token or 'x'}").status == 401


@pytest.mark.parametrize(
    "place",
    ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere", "x", "/a\r\nb: c"],
)
def test_signing_in_leads_nowhere_else(place: str) -> None:
    page = SignedIn(FakeReads())
    assert page.post("/login", {"token": TOKEN, "next": place}).headers["location"] == "/"


def test_a_session_ends() -> None:
    clock = SetClock()
    sessions = Sessions(TOKEN, clock, SeededEntropy(1))
    session = sessions.open(TOKEN)
    assert session is not None
    assert sessions.valid(session)
    clock.at += SESSION_S
    assert not sessions.valid(session)


def test_a_session_cannot_be_made_longer_or_carried_to_another_hub() -> None:
    clock = SetClock()
    sessions = Sessions(TOKEN, clock, SeededEntropy(1))
    session = sessions.open(TOKEN) or ""
    expires, nonce, mac = session.split(".")
    assert not sessions.valid(f"{int(expires) + 1}.{nonce}.{mac}")
    assert not Sessions("another token", clock, SeededEntropy(1)).valid(session)
    for broken in ("", ".", "..", "1.2.3", mac, "é.é.é"):
        assert not sessions.valid(broken)


def test_hubs_on_one_host_do_not_share_a_cookie() -> None:
    clock = SetClock()
    assert (
        Sessions("one", clock, SeededEntropy(1)).cookie
        != Sessions("two", clock, SeededEntropy(1)).cookie
    )


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
    page, other = running(), running()
    other.app = page.app
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
    [(rollout, verb, command, actor)] = page.reads.commands
    assert (rollout, verb, actor) == ("ro-running", Verb.PAUSE, "operator")
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
    assert SignedIn(FakeReads()).post("/login", {"token": "x" * (FORM_BYTES + 1)}).status == 413


def test_signing_out_needs_the_form_and_forgets_the_cookie() -> None:
    page = signed_in()
    assert "set-cookie" not in page.post("/logout", {}).headers
    reply = page.post("/logout", {"form_token": page.form_token()})
    assert "max-age=0" in reply.headers["set-cookie"].lower()


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
