"""The report of an optimisation in a browser: axe finds nothing, and it fits a narrow screen."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from edgefleet.optimize.report.page import write_report
from support.axe import violations
from support.browser import WAIT_MS, Complaints
from support.reports import report

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(1200, "light", marks=pytest.mark.long),
        pytest.param(390, "light", marks=pytest.mark.long),
        pytest.param(1200, "dark", marks=pytest.mark.long),
    ],
)
def test_axe_finds_nothing_and_the_page_fits(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    write_report(tmp_path / "report.html", report())
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    try:
        page = context.new_page()
        complaints = Complaints(page)
        page.goto((tmp_path / "report.html").as_uri())
        assert violations(page) == []
        assert complaints.heard == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg").count() == 13
        if folder := os.environ.get("EDGEFLEET_PICTURES"):
            page.screenshot(path=f"{folder}/report-{width}-{scheme}.png", full_page=True)
    finally:
        context.close()
