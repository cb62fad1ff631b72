"""The agent needs only the standard library and the packages in docs/device-dependencies.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "edgefleet"
DEVICE_PACKAGES = ("agent", "base", "protocol", "security")

# Imports every module of the agent while only the listed packages can be imported.
PROBE = """
import importlib, pkgutil, sys

class NothingElse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in KNOWN:
            raise ModuleNotFoundError(f"No module named {{name!r}} on a device", name=name)

KNOWN = set(sys.stdlib_module_names) | {{"edgefleet"}} | {allowed!r}
for name in [name for name in sys.modules if name.partition(".")[0] not in KNOWN]:
    if not name.startswith("_"):
        del sys.modules[name]
sys.meta_path.insert(0, NothingElse())
{planted}
import edgefleet.agent, edgefleet.security.signing
for module in pkgutil.walk_packages(edgefleet.agent.__path__, "edgefleet.agent."):
    importlib.import_module(module.name)
print(*sorted(name.partition(".")[0] for name in sys.modules))
"""


def allowed() -> set[str]:
    return set(
        re.findall(
            r"^\| `([a-z0-9_]+)` \|",
            (ROOT / "docs" / "device-dependencies.md").read_text(),
            re.MULTILINE,
        )
    )


def load_agent(planted: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE.format(allowed=allowed(), planted=planted)],
        capture_output=True,
        text=True,
        check=False,
    )


def imported(source: str) -> Iterator[str]:
    """Top-level names of all imports in ``source``, also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def foreign(source: str) -> set[str]:
    return set(imported(source)) - set(sys.stdlib_module_names) - {"edgefleet"} - allowed()


def test_the_agent_loads_where_nothing_else_is_installed() -> None:
    result = load_agent()
    assert result.returncode == 0, result.stderr


def test_every_entry_of_the_list_is_really_used() -> None:
    assert allowed() <= set(load_agent().stdout.split())


def test_no_import_of_a_device_package_lies_outside_the_list() -> None:
    outside = {
        str(path.relative_to(SOURCE)): foreign(path.read_text())
        for package in DEVICE_PACKAGES
        for path in SOURCE.glob(f"{package}/**/*.py")
    }
    assert {path: names for path, names in outside.items() if names} == {}


@pytest.mark.parametrize("module", ["numpy", "click", "requests"])
def test_a_planted_dependency_is_found(module: str) -> None:
    assert load_agent(f"import {module}").returncode != 0
    assert foreign(f"def fetch():\n    from {module} import get\n    return get()") == {module}
