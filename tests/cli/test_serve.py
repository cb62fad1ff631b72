"""``edgefleet serve``, started as on a command line."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from edgefleet.cli.exits import Exit

FREE = ("--listen", "127.0.0.1:0", "--checkin-listen", "127.0.0.1:0")


@contextmanager
def serving(home: Path, *args: str) -> Iterator["subprocess.Popen[str]"]:
    """The program, ended with the test at the latest."""
    child = subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli.main", "serve", *args],
        env=environ(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=30)


def environ(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}


def signs_in(link: str) -> bool:
    """Whether the link leads to the fleet, and not to the login form."""
    try:
        with build_opener(HTTPCookieProcessor()).open(link, timeout=30) as answer:
            return b"Sign out" in answer.read()
    except HTTPError as error:
        if error.code != 401:
            raise
        return False


def lines(child: "subprocess.Popen[str]", until: str) -> list[str]:
    """Its output up to the line that contains ``until``."""
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line.rstrip())
        if until in line:
            return said
    assert child.stderr is not None
    raise AssertionError(f"it ended: {said} {child.stderr.read()}")


def test_it_prints_the_page_and_the_next_commands_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with serving(tmp_path, *FREE) as child:
        said = lines(child, "edgefleet doctor")
        page = next(line.split()[1] for line in said if line.startswith("  page"))
        folder = tmp_path / ".local" / "share" / "edgefleet" / "hub"
        token = (folder / "operator.token").read_text().strip()
        assert not any(secret in line for line in said for secret in (token, "code="))
        login = subprocess.run(
            [sys.executable, "-m", "edgefleet.cli.main", "hub", "login"],
            env=environ(tmp_path), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        link = login.stdout.strip()
        assert link.startswith(f"{page}/login?code=")
        assert token not in link
        assert signs_in(link)
        assert not signs_in(link)  # it works once
        assert "  edgefleet model publish FOLDER --trust" in said
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == Exit.DONE


def test_its_object_is_one_line_and_the_folder_is_held(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path / "hub"))
    with serving(tmp_path, *FREE, *folder, "--json") as child:
        found = json.loads(lines(child, "url")[0])
        assert found["data_dir"] == str(tmp_path / "hub")
        with serving(tmp_path, *FREE, *folder, "--json") as second:
            out, _ = second.communicate(timeout=60)
            assert second.returncode == Exit.FAILED
            assert json.loads(out)["code"] == "data_dir_in_use"
        taken = found["url"].removeprefix("http://")
        other = ("--data-dir", str(tmp_path / "other"))
        with serving(tmp_path, *FREE, *other, "--listen", taken, "--json") as third:
            out, _ = third.communicate(timeout=60)
            assert third.returncode == Exit.FAILED
            assert json.loads(out)["code"] == "address_in_use"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == Exit.DONE


@pytest.mark.parametrize(
    ("option", "value"),
    [("--listen", "nowhere"), ("--interval", "0"), ("--max-artifact-mib", "0"), ("--tick", "x")],
)
def test_a_bad_setting_starts_nothing(option: str, value: str, tmp_path: Path) -> None:
    with serving(tmp_path, *FREE, option, value, "--json") as child:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == Exit.USAGE
        assert json.loads(out)["code"] == "setting_invalid"
    assert not (tmp_path / ".local").exists()


@pytest.mark.long
def test_on_a_terminal_it_prints_a_link_that_signs_in_once(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edgefleet.cli.main", "serve", *FREE]
    with subprocess.Popen(command, env=environ(tmp_path), stdout=theirs) as child:
        os.close(theirs)
        try:
            with os.fdopen(ours, encoding="utf-8") as screen:
                page = next(line.split()[1] for line in screen if line.startswith("  page"))
                assert signs_in(page)
                assert not signs_in(page)
        finally:
            child.kill()
