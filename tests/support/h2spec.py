"""h2spec, the conformance test of HTTP/2, built once with Go into a folder outside of the clone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BUILD_S = 300
RUN_S = 120
VERSION = "v2.2.1+incompatible"
MODULES = f"""module edgefleet/h2spec

go 1.21

require (
	github.com/summerwind/h2spec {VERSION}
	github.com/fatih/color v1.19.0
	github.com/mattn/go-colorable v0.1.14
	github.com/mattn/go-isatty v0.0.20
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.9
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
	golang.org/x/text v0.43.0
)
"""


def h2spec() -> Path:
    """The program. Skips the test if it cannot be built here."""
    home = Path.home() / ".cache" / "edgefleet" / "h2spec"
    folder = Path(os.environ.get("EDGEFLEET_H2SPEC") or home)
    program = folder / f"h2spec-{VERSION.partition('+')[0]}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        pytest.skip("h2spec needs Go to be built: install Go, or set EDGEFLEET_H2SPEC.")
    work = folder / f"build-{os.getpid()}"
    work.mkdir(parents=True)
    (work / "go.mod").write_text(MODULES)
    command = [go, "build", "-mod=mod", "-o", "h2spec", "github.com/summerwind/h2spec/cmd/h2spec"]
    built = subprocess.run(
        command, cwd=work, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if built.returncode:
        pytest.skip(f"h2spec could not be built: {built.stderr.strip().splitlines()[-1:]}")
    (work / "h2spec").replace(program)
    shutil.rmtree(work)
    return program


def conformance(port: int, *sections: str, wait_s: int = 5) -> tuple[int, int, str]:
    """The numbers of h2spec's cases that ran, and that passed; and what it printed.

    ``wait_s``: the patience with each reply, in seconds.
    """
    command = [str(h2spec()), "-h", "127.0.0.1", "-p", str(port), "--strict", "-o", str(wait_s)]
    command += sections
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return int(found[1]) - int(found[3]), int(found[2]), done.stdout
