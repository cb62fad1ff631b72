"""The page in headless Chromium, over a socket."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from edgefleet.protocol.rollout import Status, Verb
from support.browser import open_page
from support.fake_reads import TOKEN, FakeReads
from support.page_server import PageServer
from support.scenes import rollout_in

pytestmark = pytest.mark.browser

ROLLOUT = "/rollouts/ro-running"
HEALTHY = "[data-part=rollout_waves] .legend li:first-child"
EVERY_PAGE = (
    "/", "/rollouts", "/audit", "/devices", "/devices?selector=site%3Dlyon", "/devices/lyon-0000",
    "/models", "/models/digits", "/models/digits/3", *(f"/rollouts/ro-{status.value}" for status in Status),
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[PageServer]:
    reads = FakeReads(time.time())
    for status in Status:
        reads.put(rollout_in(status, now=reads.now))
    with PageServer(reads) as running:
        yield running


def mark(page: Page) -> None:
    page.evaluate("window.marked = true")


def still_marked(page: Page) -> bool:
    """True if the document is still the marked one: a reload would clear the mark."""
    return bool(page.evaluate("window.marked === true"))


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_these_tests_notice_an_error_a_missing_file_and_a_reload(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url, TOKEN) as (page, complaints):
        mark(page)
        page.evaluate("console.error('planted')")
        page.evaluate("fetch('/static/planted.js')")
        page.reload()
        assert not still_marked(page)
        page.wait_for_selector("#link[data-state=live]")
        heard = " ".join(complaints.heard)
        assert "error: planted" in heard
        assert "404: " in heard


def test_a_rollout_advances_on_screen_without_reload(
    browser: Browser, server: PageServer, tmp_path: Path
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, complaints):
        mark(page)
        for healthy in (75, 80, 85):
            server.reads.play("ro-running", healthy)
            expect(page.locator(".verdict")).to_contain_text(f"{healthy} devices are healthy.")
            expect(page.locator(HEALTHY)).to_contain_text(str(healthy))
        server.reads.put(rollout_in(Status.COMPLETED, now=time.time(), rollout_id="ro-running"))
        expect(page.locator("h1 .pill")).to_have_text("completed")
        expect(page).to_have_title("digits 3: completed · edgefleet")
        assert still_marked(page)
        shot = tmp_path / "rollout.png"
        page.screenshot(path=shot, full_page=True)
        assert png_size(shot)[0] == 1440
        assert shot.stat().st_size > 30_000
        assert complaints.heard == []


@pytest.mark.parametrize(
    ("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]
)
def test_every_page_fits_the_screen_and_complains_of_nothing(
    browser: Browser, server: PageServer, width: int, scheme: str
) -> None:
    with open_page(browser, server.url, TOKEN, width=width, scheme=scheme) as (page, complaints):
        for address in EVERY_PAGE:
            page.goto(server.url + address)
            page.wait_for_selector("#link[data-state=live]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert complaints.heard == []


def test_a_verb_reaches_the_hub_and_the_page_shows_where_it_stands(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, complaints):
        page.locator("#confirm-pause > summary").click()
        expect(page.locator("#confirm-pause .ask")).to_contain_text("14 devices in trial go on")
        page.get_by_role("button", name="Yes, pause").click()
        expect(page.locator("h1 .pill")).to_have_text("paused")
        page.wait_for_selector("#link[data-state=live]")
        page.locator("#confirm-revert > summary").click()
        expect(page.locator("#confirm-revert .ask")).to_contain_text("85 devices to 2")
        page.locator("#note-revert").fill("looks odd")
        page.get_by_role("button", name="Yes, revert").click()
        expect(page.locator("h1 .pill")).to_have_text("reverting")
        given = [
            (rollout, verb, command.generation, command.note)
            for rollout, verb, command, _ in server.reads.commands
        ]
        assert given == [
            ("ro-running", Verb.PAUSE, 7, ""),
            ("ro-running", Verb.REVERT, 7, "looks odd"),
        ]
        assert complaints.heard == []


def test_the_page_says_that_the_hub_is_silent_and_lives_on_when_it_is_back(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        mark(page)
        server.stop()
        expect(page.locator("#silence")).to_contain_text("The hub has not answered for")
        expect(page.locator("#link")).to_have_attribute("data-state", "lost")
        server.reads.play("ro-running", 88)
        server.start()
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        expect(page.locator("#silence")).to_be_hidden()
        expect(page.locator(".verdict")).to_contain_text("88 devices are healthy.")
        assert still_marked(page)


def test_the_page_is_live_again_however_often_it_called_a_hub_that_was_away(
    browser: Browser, server: PageServer
) -> None:
    calls: list[str] = []
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        page.on("requestfailed", lambda request: calls.append(request.url))
        server.stop()
        while len(calls) < 5:  # more than the streams that a page tries before it polls
            page.wait_for_timeout(100)
        server.start()
        expect(page.locator("#link")).to_have_attribute("data-state", "live")


def test_where_no_stream_comes_through_the_page_asks(browser: Browser, server: PageServer) -> None:
    def refuse_streams(route: Route) -> None:
        if route.request.headers.get("accept") == "text/event-stream":
            route.abort()
        else:
            route.continue_()

    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        page.route("**/*", refuse_streams)
        page.clock.install()
        page.reload()
        mark(page)
        expect(page.locator("#link")).to_have_attribute("data-state", "polling")
        server.reads.play("ro-running", 91)
        expect(page.locator(".verdict")).to_contain_text("91 devices are healthy.")
        page.unroute("**/*")
        page.clock.fast_forward("06:00")
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        assert still_marked(page)


def test_what_the_reader_opened_stays_open_when_its_piece_changes(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        page.locator("#data-waves > summary").click()
        server.reads.play("ro-running", 77)
        expect(page.locator(HEALTHY)).to_contain_text("77")
        expect(page.locator("#data-waves table")).to_be_visible()


def test_a_piece_that_did_not_change_is_not_touched_even_when_it_is_sent_again(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        for part in ("rollout_facts", "rollout_waves"):
            first = page.locator(f"[data-part={part}] > *").first
            first.evaluate("element => element.dataset.mine = 'yes'")
        server.stop()
        server.reads.play("ro-running", 79)
        server.start()  # the new stream begins with all fragments
        expect(page.locator(HEALTHY)).to_contain_text("79")
        expect(page.locator("[data-part=rollout_facts] [data-mine=yes]")).to_have_count(1)
        expect(page.locator("[data-part=rollout_waves]")).to_contain_text("79")


def test_a_rollout_that_is_gone_is_said_to_be_gone(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        del server.reads.rollout_views["ro-running"]
        expect(page.locator("#silence")).to_contain_text("There is no rollout")


def test_times_are_the_readers_and_count_on(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        age = page.locator("[data-part=rollout_facts] time").first
        expect(age).to_contain_text("ago")
        before = age.inner_text()
        expect(age).not_to_have_text(before)
        expect(page.locator("time[data-show=countdown]").first).to_contain_text("in ")


def test_signing_in_by_the_form_leads_to_the_page_that_was_asked_for(
    browser: Browser, server: PageServer
) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(server.url + ROLLOUT)
        page.get_by_label("Password or token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(server.url + ROLLOUT)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Password or token")).to_be_visible()
    finally:
        context.close()


def test_keys_lead_to_the_filter(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url, TOKEN) as (page, _):
        page.keyboard.press("/")
        expect(page.locator("#filter")).to_be_focused()
        page.keyboard.type("site=oslo")
        page.keyboard.press("Enter")
        expect(page.locator("[data-part=device_rows]")).to_contain_text("oslo-0001")
        expect(page.locator("[data-part=device_rows]")).not_to_contain_text("lyon-0000")
