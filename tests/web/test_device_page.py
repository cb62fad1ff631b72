"""The page that a device serves itself, in a browser, over a real serving process."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edgefleet.base.network import HttpLink
from support.axe import violations
from support.browser import Complaints
from support.named_classes import NAMES, with_names
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "m.onnx")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServingProcess]:
    with serving(tmp_path) as running:
        yield running


@contextmanager
def opened(
    browser: Browser, url: str, width: int, scheme: str = "light"
) -> Iterator[tuple[Page, Complaints]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        complaints = Complaints(page)
        page.goto(url)
        page.wait_for_selector("#link[data-state=live]")
        yield page, complaints
    finally:
        context.close()


def ask(process: ServingProcess, *, right: int, wrong: int = 0) -> None:
    """Requests that are answered, and requests of a wrong shape."""
    link = HttpLink(process.url)
    for number in range(right + wrong):
        items = 64 if number < right else 63
        tensor = {
            "name": "pixels", "datatype": "FP32", "shape": [1, items],
            "data": pixels(1).ravel()[:items].tolist(),
        }  # fmt: skip
        body = json.dumps({"inputs": [tensor]}).encode()
        answer = link.request("POST", "/v2/models/digits/infer", body=body)
        assert answer.status == (200 if number < right else 400)


def tile(page: Page, name: str) -> str:
    return page.locator(f'.tiles div:has(dt:text-is("{name}")) dd').inner_text()


def test_the_page_shows_what_the_device_does_now(
    browser: Browser, process: ServingProcess, model: TinyModel, tmp_path: Path
) -> None:
    with opened(browser, process.url, 390, "dark") as (page, complaints):
        expect(page.locator("#none")).to_be_visible()
        process.activate(with_names(model, tmp_path))
        ask(process, right=3)
        expect(page.get_by_role("heading", level=2)).to_contain_text("digits release 7")
        throughput = page.locator('.tiles div:has(dt:text-is("Throughput")) dd')
        expect(throughput).to_contain_text("3 since it was loaded")
        ask(process, right=9, wrong=3)
        expect(throughput).to_contain_text("12 since it was loaded")
        expect(page.locator("#none")).to_be_hidden()
        # The release's first three requests may be older than the figures of the last minute.
        assert tile(page, "Refused").startswith(("20.0 %", "25.0 %"))
        assert tile(page, "Errors").startswith("0.0 %")
        for name in ("Latency p50", "Latency p95", "Latency p99", "CPU a request"):
            assert any(unit in tile(page, name) for unit in (" µs", " ms")), name
        shown = float(tile(page, "Confidence").split()[0])
        assert shown == pytest.approx(float(model.probabilities(pixels(1)).max()), abs=0.002)
        best = NAMES[int(model.probabilities(pixels(1)).argmax())]
        assert tile(page, "Most frequent class").startswith(f"{best} 100.0 %")
        chart = page.get_by_role("img", name="Requests a second")
        expect(chart).to_have_attribute("aria-label", re.compile(r"from .* to .*/s"))
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert complaints.heard == []
        process.activate(model.activate("8"))
        expect(page.get_by_role("heading", level=2)).to_contain_text("digits release 8")
        expect(throughput).to_contain_text("0 since it was loaded")


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (390, "light")])
def test_the_keyboard_pauses_the_page_and_axe_finds_nothing(
    browser: Browser, process: ServingProcess, model: TinyModel, width: int, scheme: str
) -> None:
    process.activate(model.activate("7"))
    ask(process, right=2)
    with opened(browser, process.url, width, scheme) as (page, complaints):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pause"
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("paused")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        ask(process, right=2)
        before = tile(page, "Throughput")
        page.wait_for_timeout(2_500)  # more than the time between two polls
        assert tile(page, "Throughput") == before
        page.keyboard.press("Enter")
        throughput = page.locator('.tiles div:has(dt:text-is("Throughput")) dd')
        expect(throughput).to_contain_text("4 since it was loaded")
        assert page.evaluate("document.activeElement.id") == "pause"
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert complaints.heard == []
        process.kill()
        expect(page.locator("#silence")).to_contain_text("The page shows its last answer.")
        expect(page.locator("#link")).to_have_text("not live")
        assert violations(page) == []
