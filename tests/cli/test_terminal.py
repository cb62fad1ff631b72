"""On a terminal bars are updated in place; they never reach standard output."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefleet.base.ids import sha256_hex
from edgefleet.base.readable import wait_readable
from edgefleet.cli.exits import Exit
from edgefleet.examples import FOLDER
from edgefleet.protocol.operator import ArtifactView, TrustedKeys, TrustKey
from edgefleet.protocol.rollout import Status
from support.canned_hub import TOKEN, CannedHub
from support.command_line import CommandLine
from support.fake_reads import NOW, release_view, rollout_in
from support.waiting import WAIT_S

RELEASE = FOLDER / "digits" / "release-1"


def on_terminal(home: Path, *args: str) -> tuple[int, str, str]:
    """Exit code, standard output (a pipe) and standard error (a terminal)."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli.main", *args],
        env={**os.environ, "HOME": str(home), "TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + WAIT_S
        while wait_readable(ours, max(0.0, deadline - time.monotonic())):
            try:
                shown += os.read(ours, 65536)
            except OSError:  # Linux raises this after the other side has closed
                break
        else:
            child.kill()
            pytest.fail(f"The command did not end within {WAIT_S:g} s; it showed {shown!r}.")
        os.close(ours)
        out = child.communicate(timeout=60)[0]
        return child.returncode, out.decode(), shown.decode()


def test_a_watch_draws_the_wave_in_place(fleet: CommandLine, canned: CannedHub) -> None:
    canned.put(
        "GET", "/api/v1/rollouts/ro-1", rollout_in(Status.RUNNING), 502, rollout_in(Status.REVERTED)
    )
    args = ("rollout", "watch", "ro-1", "--hub", canned.url, "--token", TOKEN)
    code, out, shown = on_terminal(fleet.home, *args)
    assert code == Exit.FAILED
    assert "\x1b[" in shown
    assert "wave 2 of 3 (10 %)" in shown
    assert "No answer from the hub for" in shown
    assert "\x1b" not in out
    assert "reverted (error_rate)" in out


def test_an_upload_draws_a_bar_for_each_file(fleet: CommandLine, canned: CannedHub) -> None:
    made = fleet("key", "new", "--json").json
    key = TrustKey(name="team", public_key=made["public_key"])
    canned.put("GET", "/api/v1/trust", TrustedKeys(keys=(key,)))
    canned.put("POST", "/api/v1/releases", release_view("1", NOW))
    for file in RELEASE.iterdir():
        data = file.read_bytes()
        name = sha256_hex(data)
        view = ArtifactView(sha256=name, size_bytes=len(data))
        canned.put("PUT", f"/api/v1/artifacts/{name}", view)
    hub = ("--hub", canned.url, "--token", TOKEN)
    args = ("model", "publish", str(RELEASE), "--skip-proof", *hub)
    code, out, shown = on_terminal(fleet.home, *args)
    assert code == 0, shown
    for name in ("fp16.onnx", "int8.onnx", "fp32.onnx", "golden.npz"):
        assert name in shown
    assert "digits 1 is published" in out
    assert "\x1b" not in out
