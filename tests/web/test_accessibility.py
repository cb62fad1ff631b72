"""axe finds nothing on any page, in any state, in both schemes, on a narrow and a wide screen."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser

from edgefleet.protocol.operator import QuarantinedDevice
from edgefleet.protocol.rollout import Freeze, Status
from support.axe import violations
from support.browser import open_page
from support.fake_reads import TOKEN, FakeReads
from support.page_server import PageServer
from support.scenes import rollout_in

pytestmark = pytest.mark.browser

PAGES: Final = (
    "/", "/rollouts", "/devices", "/devices?selector=nonsense", "/devices/lyon-0000", "/models",
    "/models/digits/3", "/audit", "/nosuch",
)  # fmt: skip


def quarantined(reads: FakeReads) -> None:
    reads.quarantined_devices = [
        QuarantinedDevice(name=one.name, model="digits", rollbacks=2)
        for one in reads.device_views[:12]
    ]


def frozen(reads: FakeReads) -> None:
    reads.freeze_said = Freeze(frozen=True, person="ada", note="night", since=reads.now - 60)


STATES: Final[tuple[Callable[[FakeReads], None], ...]] = (quarantined, frozen)


@pytest.fixture
def server() -> Iterator[PageServer]:
    reads = FakeReads(time.time())
    for status in Status:
        reads.put(rollout_in(status, now=reads.now))
    with PageServer(reads) as running:
        yield running


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1400, "light"),
        (390, "dark"),
        pytest.param(1400, "dark", marks=pytest.mark.long),
        pytest.param(390, "light", marks=pytest.mark.long),
    ],
)
def test_axe_finds_nothing(browser: Browser, server: PageServer, width: int, scheme: str) -> None:
    with open_page(browser, server.url, TOKEN, width=width, scheme=scheme) as (page, _):
        found: list[str] = []
        for status in Status:
            page.goto(f"{server.url}/rollouts/ro-{status.value}")
            found += violations(page)
        page.goto(f"{server.url}/rollouts/ro-running")
        page.locator("#confirm-revert > summary").click()
        found += violations(page)
        for address in PAGES:
            page.goto(server.url + address)
            found += violations(page)
        for state in STATES:
            state(server.reads)
            page.goto(server.url)
            found += violations(page)
        assert "\n".join(found) == ""


def test_axe_finds_a_fault(browser: Browser, server: PageServer) -> None:
    with open_page(browser, server.url, TOKEN) as (page, _):
        page.evaluate("document.querySelector('main').innerHTML += '<img src=\"/favicon.ico\">'")
        assert "image-alt" in "".join(violations(page))
