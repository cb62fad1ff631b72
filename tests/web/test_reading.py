"""A live page under the hands of a reader: focus, selection, clicks, questions, pause, narrow screens."""

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect

from edgefleet.protocol.rollout import Status
from support.browser import open_page, sign_in
from support.fake_reads import TOKEN, FakeReads
from support.page_server import PageServer
from support.scenes import rollout_in

pytestmark = pytest.mark.browser

ROLLOUT = "/rollouts/ro-running"


@pytest.fixture
def server() -> Iterator[PageServer]:
    reads = FakeReads(time.time())
    for status in Status:
        reads.put(rollout_in(status, now=reads.now))
    with PageServer(reads) as running:
        yield running


def change(server: PageServer, number: int = 0, **fields: object) -> None:
    """Change the view of a device on the list."""
    views = server.reads.device_views
    views[number] = replace(views[number], **fields)  # type: ignore[arg-type]


def test_focus_and_selection_stay_while_the_list_changes(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + "/devices", TOKEN) as (page, complaints):
        page.locator("#device-lyon-0003 td.title a").focus()
        page.evaluate(
            "getSelection().selectAllChildren(document.querySelector('#device-oslo-0004 td.line'))"
        )
        selected = page.evaluate("String(getSelection())")
        assert selected
        for word in ("first", "second", "third"):
            change(server, 0, line=f"The {word} reason.")
            expect(page.locator("#device-lyon-0000 td.line")).to_contain_text(word)
        assert page.evaluate("document.activeElement.textContent") == "lyon-0003"
        assert page.evaluate("String(getSelection())") == selected
        assert complaints.heard == []


def test_a_click_that_spans_changes_is_not_lost(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        summary = page.locator("#data-waves > summary")
        for number in range(30):
            box = summary.bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2)
            page.mouse.down()
            server.reads.play("ro-running", 40 + number)
            page.wait_for_timeout(120)  # of the press; a page is rendered each 50 ms
            page.mouse.up()
            is_open = page.evaluate("document.querySelector('#data-waves').open")
            assert is_open == (number % 2 == 0), number


def test_an_open_question_and_its_note_stay_and_escape_closes_it(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        page.locator("#confirm-revert > summary").click()
        page.locator("#note-revert").fill("half a note")
        server.reads.play("ro-running", 83)
        expect(page.locator("#confirm-revert .ask")).to_contain_text("83 devices")
        expect(page.locator("#note-revert")).to_have_value("half a note")
        expect(page.locator("#note-revert")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#confirm-revert .ask")).to_be_hidden()
        expect(page.locator("#confirm-revert > summary")).to_be_focused()


def test_ages_come_as_data_and_leave_the_rows_alone(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url + "/devices", TOKEN) as (page, _):
        seen = page.locator("#device-lyon-0000 time")
        before = seen.get_attribute("datetime")
        version = page.locator("[data-part=device_rows]").get_attribute("data-version")
        change(server, 0, last_seen=time.time() + 60)
        page.wait_for_function(
            "before => document.querySelector('#device-lyon-0000 time').getAttribute('datetime') !== before",
            arg=before,
        )
        assert page.locator("[data-part=device_rows]").get_attribute("data-version") == version


def test_a_paused_page_stays_as_it_is_until_it_goes_on(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        verdict = page.locator(".verdict")
        page.keyboard.press("p")
        expect(page.locator("#link")).to_have_text("paused")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        shown = verdict.inner_text()
        server.reads.play("ro-running", 81)
        page.wait_for_timeout(300)  # a live page shows it within 50 ms
        assert verdict.inner_text() == shown
        page.locator("#pause").click()
        expect(verdict).to_contain_text("81 devices are healthy.")


def test_single_keys_can_be_turned_off(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url + ROLLOUT, TOKEN) as (page, _):
        page.keyboard.press("?")
        page.locator("#keys-on").uncheck()
        page.locator("h1").click()
        page.keyboard.press("f")
        page.reload()
        expect(page.locator("#keys-on")).not_to_be_checked()
        page.keyboard.press("f")
        assert page.url == server.url + ROLLOUT


def on_screen(page: Page, selector: str) -> bool:
    """True if the whole width of the element is inside the window."""
    return bool(
        page.evaluate(
            "s => { const r = document.querySelector(s).getBoundingClientRect();"
            " return r.width > 0 && r.left >= 0 && r.right <= innerWidth + 1; }",
            selector,
        )
    )


def test_on_a_narrow_screen_rows_are_cards_with_the_cause_in_sight(
    browser: Browser, server: PageServer
) -> None:
    with open_page(browser, server.url + "/rollouts", TOKEN, width=390) as (page, _):
        assert on_screen(page, "#rollout-ro-reverted td.line")
        page.goto(server.url + "/devices")
        assert on_screen(page, "#device-lyon-0000 td.line")
        page.goto(server.url + "/devices/lyon-0000")
        assert on_screen(page, "[data-part=device_history] td.line")


def test_times_have_their_date_and_zone(browser: Browser, server: PageServer) -> None:
    context = browser.new_context(timezone_id="Asia/Kolkata")
    try:
        page = context.new_page()
        sign_in(context, server.url, TOKEN)
        page.goto(server.url + ROLLOUT)
        shown = page.locator("[data-part=rollout_facts] time").first
        expect(shown).to_contain_text("ago")
        assert "UTC+5:30, " in shown.inner_text()
        assert shown.inner_text()[:4].isdigit()
    finally:
        context.close()


def test_an_unknown_address_is_a_page_for_people(browser: Browser, server: PageServer) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        sign_in(context, server.url, TOKEN)
        answer = page.goto(f"{server.url}/nosuch/place")
        assert answer is not None
        assert answer.status == 404
        expect(page.locator("[role=alert]").last).to_contain_text("There is no page /nosuch/place.")
        page.get_by_role("link", name="Devices").click()
        expect(page).to_have_url(f"{server.url}/devices")
    finally:
        context.close()
