"""Headless Chromium, and the errors that it logged."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WAIT_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Skips the test if the machine has none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs headless Chromium: install the Debian package chromium")
    expect.set_options(timeout=WAIT_MS)  # long: a machine may be busy, and time is not under test
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


class Complaints:
    """Console errors and warnings, uncaught errors, requests that failed or were refused."""

    def __init__(self, page: Page) -> None:
        self.heard: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.heard.append(f"uncaught: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.heard.append(f"{message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # Leaving a page closes its stream, which is not a failure.
        if not (request.resource_type == "eventsource" and request.failure == "net::ERR_ABORTED"):
            self.heard.append(f"failed: {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.heard.append(f"{response.status}: {response.url}")


def sign_in(context: BrowserContext, url: str, token: str) -> None:
    """Open a session of the hub at ``url`` in this browser profile."""
    parts = urlsplit(url)
    form = {"name": "operator", "secret": token, "next": "/static/favicon.svg"}
    answer = context.request.post(f"{parts.scheme}://{parts.netloc}/login", form=form)
    assert answer.ok, answer.status


@contextmanager
def open_page(
    browser: Browser, url: str, token: str, *, width: int = 1440, scheme: str = "light"
) -> Iterator[tuple[Page, Complaints]]:
    """A page of a fresh browser profile, signed in and live."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    try:
        page = context.new_page()
        complaints = Complaints(page)
        sign_in(context, url, token)
        page.goto(url)
        page.wait_for_selector("#link[data-state=live]")
        yield page, complaints
    finally:
        context.close()
