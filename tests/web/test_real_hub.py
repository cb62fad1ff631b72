"""The page of a real hub process: started by its command, opened in a browser, killed once."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edgefleet.client.hub import HubClient
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, WaveSpec
from edgefleet.security.signing import PublisherKey
from support.browser import open_page
from support.raw_device import RawDevice, enrolled
from support.tiny_releases import publish, tiny_release

pytestmark = pytest.mark.browser

DEVICES = 40
LONGEST_S = 90.0
GATE = GateSpec(soak_s=0.05, confirm_after_s=0.1, min_sample=4, patience_s=3600, silence_s=3600)


@dataclass
class Served:
    """``edgefleet serve`` in a child process."""

    folder: Path
    process: subprocess.Popen[str]
    url: str

    @property
    def token(self) -> str:
        return (self.folder / "operator.token").read_text().strip()


@contextmanager
def serving(folder: Path, listen: str = "127.0.0.1:0") -> Iterator[Served]:
    command = [sys.executable, "-m", "edgefleet.cli.main", "serve", "--json", "--tick", "50ms"]
    command += ["--interval", "1s", "--data-dir", str(folder)]
    command += ["--listen", listen, "--checkin-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Served(folder, process, json.loads(process.stdout.readline())["url"])
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)


def plan(client: HubClient, release: str) -> str:
    waves = tuple(WaveSpec(percent=percent) for percent in (10, 100))
    return client.plan(RolloutSpec(model="digits", release=release, waves=waves, gate=GATE)).id


def live_until(page: Page, devices: list[RawDevice], status: str, *, healthy: bool = True) -> None:
    """Run the devices until the open page shows that the rollout has ``status``."""
    pill, until = page.locator("h1 .pill"), time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        for device in devices:
            device.check_in()
            device.live(healthy=healthy)
        if pill.inner_text() == status:
            return
        page.wait_for_timeout(20)  # the browser handles the messages of the stream
    raise AssertionError(f"it is not {status}: {page.locator('main').inner_text()}")


def test_a_good_release_goes_out_and_a_bad_one_comes_back_on_screen(
    browser: Browser, tmp_path: Path
) -> None:
    key = PublisherKey.generate()
    with serving(tmp_path / "data") as served:
        client = HubClient(served.url, served.token)
        devices = enrolled(client, served.url, DEVICES)
        for release in ("1", "2"):
            publish(client, key, tiny_release(tmp_path / "files", release))
        with open_page(browser, served.url, served.token) as (page, complaints):
            for release, end, healthy in (("1", "completed", True), ("2", "reverted", False)):
                address = f"/rollouts/{plan(client, release)}"
                page.goto(served.url + address)
                page.locator("#confirm-start > summary").click()
                page.get_by_role("button", name="Yes, start").click()
                expect(page.locator("h1 .pill")).to_have_text("running")
                page.evaluate("window.marked = true")
                live_until(page, devices, end, healthy=healthy)
                assert page.evaluate("window.marked === true")
            reasons = page.locator("[data-part=rollout_reasons]")
            expect(reasons).to_contain_text("confidence dropped")
            expect(page.locator("[data-part=rollout_evidence]")).to_contain_text("fail")
            expect(page.locator("[data-part=audit_lines]")).to_contain_text("operator")
            page.screenshot(path=tmp_path / "reverted.png", full_page=True)
            assert (tmp_path / "reverted.png").stat().st_size > 30_000
            for address in (
                "/",
                "/rollouts",
                "/devices",
                "/devices/d000",
                "/models",
                "/models/digits/2",
                "/audit",
            ):
                page.goto(served.url + address)
                page.wait_for_selector("#link[data-state=live]")
            assert complaints.heard == []
        for device in devices:
            device.close()


def test_the_page_outlives_a_hub_that_is_killed(browser: Browser, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data") as first,
        open_page(browser, first.url, first.token) as (page, _),
    ):
        page.evaluate("window.marked = true")
        first.process.kill()
        expect(page.locator("#silence")).to_contain_text("has not answered for")
        with serving(tmp_path / "data", first.url.removeprefix("http://")):
            expect(page.locator("#link")).to_have_attribute("data-state", "live")
            assert page.evaluate("window.marked === true")


def test_a_hub_with_open_pages_stops_when_it_is_told_to(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served, open_page(browser, served.url, served.token):
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
