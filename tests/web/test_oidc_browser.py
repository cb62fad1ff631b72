"""A login with a real provider in a real browser: oidc-provider (npm), a hub process, Chromium."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edgefleet.cli.demo.processes import reserve_port
from edgefleet.client.hub import HubClient
from support.browser import WAIT_MS, Complaints

TOOL = Path(os.environ.get("EDGEFLEET_TOOLS") or Path.home() / ".cache/edgefleet/tools") / "oidc"
PROGRAM = Path(__file__).parent.parent / "support" / "oidc_provider.mjs"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("node") is None or not (TOOL / "node_modules").is_dir(),
        reason="the OIDC provider is not here: make oidc (needs npm)",
    ),
]


@contextmanager
def printing(command: list[str]) -> Iterator[str]:
    """A program that runs until the end of the block. Yields the first line that it prints."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@contextmanager
def hub_with_provider(folder: Path) -> Iterator[str]:
    """A hub with the provider, and its address."""
    with reserve_port() as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        redirect = f"{url}/login/oidc/callback"
        secret = folder / "client.secret"
        secret.write_text("a secret: of+the/hub\n")
        provider = ["node", str(PROGRAM), str(TOOL), "edgefleet", secret.read_text().strip()]
        with printing([*provider, redirect]) as issuer:
            command = [sys.executable, "-m", "edgefleet.cli.main", "serve", "--json"]
            command += ["--data-dir", str(folder / "data"), "--checkin-listen", "127.0.0.1:0"]
            command += ["--listen", url.removeprefix("http://"), "--oidc-issuer", issuer.strip()]
            command += ["--oidc-client-id", "edgefleet", "--oidc-client-secret-file", str(secret)]
            command += ["--oidc-redirect-uri", redirect, "--oidc-role", "edge-admins=admin"]
            with printing(command) as line:
                assert json.loads(line)["url"] == url
                yield url


def log_in(page: Page, name: str) -> None:
    """Press the button, log in at the provider and agree to it."""
    page.locator("#provider").click()
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", "any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def test_a_person_logs_in_with_a_real_provider(browser: Browser, tmp_path: Path) -> None:
    with hub_with_provider(tmp_path) as url:
        context = browser.new_context()
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(f"{url}/devices?phase=idle")
        complaints = Complaints(page)
        log_in(page, "Ada.edge-admins.others")
        page.wait_for_url(f"{url}/devices?phase=idle")
        expect(page.locator("header")).to_contain_text("ada (admin)")
        page.wait_for_selector("#link[data-state=live]")
        ours = [one for one in complaints.heard if url in one]
        assert ours == []
        cookie = next(one for one in context.cookies(url) if not one["name"].startswith("_"))
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")

        page.get_by_role("button", name="Sign out").click()
        page.goto(f"{url}/devices")
        expect(page.locator("#provider")).to_be_visible()
        page.locator("#provider").click()  # the provider still knows the person
        expect(page.locator("header")).to_contain_text("ada (admin)")
        context.close()

        other = browser.new_context()
        other.set_default_timeout(WAIT_MS)
        page = other.new_page()
        page.goto(url)
        log_in(page, "bob.guests")
        expect(page.locator(".refused")).to_contain_text("None of your groups")
        page.fill("#secret", (tmp_path / "data" / "operator.token").read_text().strip())
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.locator("header")).to_contain_text("operator (admin)")
        other.close()

        hub = HubClient(url, (tmp_path / "data" / "operator.token").read_text().strip())
        users = hub.people.users().users
        assert [(one.name, one.source, one.role) for one in users] == [("ada", "oidc", "admin")]
