"""axe-core on a page of the browser."""

from importlib import resources
from typing import Any, Final

from playwright.sync_api import Page

AXE: Final = (resources.files("axe_playwright_python") / "axe.min.js").read_text()


def violations(page: Page) -> list[str]:
    """The findings of axe on the page: rule, number of places, the first of them."""
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations'], elementRef: false})"
    )
    return [
        f"{page.url} {one['id']} x{len(one['nodes'])}: {one['nodes'][0]['html'][:160]} "
        f"{one['nodes'][0].get('failureSummary', '')[:200]}"
        for one in found["violations"]
    ]
