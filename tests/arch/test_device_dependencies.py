"""What the agent loads on a device: the standard library and docs/device-dependencies.md, no more."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIST = ROOT / "docs" / "device-dependencies.md"

PROBE = """
import importlib, pkgutil, sys
{planted}
import edgefleet.agent
for module in pkgutil.walk_packages(edgefleet.agent.__path__, "edgefleet.agent."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
importlib.import_module("edgefleet.agent.__main__")
known = set(sys.stdlib_module_names) | {{"edgefleet"}}
print(*sorted({{name.partition(".")[0] for name in sys.modules}} - known))
"""


def allowed() -> set[str]:
    return set(re.findall(r"^\| `([a-z0-9_]+)` \|", LIST.read_text(), re.MULTILINE))


def loaded(planted: str = "") -> set[str]:
    result = subprocess.run(
        # -I and no .pth processing beyond the interpreter's own: only what the agent asks for counts.
        [sys.executable, "-c", PROBE.format(planted=planted)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(result.stdout.split())
    # What interpreter start-up itself brings (editable-install hooks and the like) is not the agent's.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*{n.partition('.')[0] for n in sys.modules})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return names - set(bare.stdout.split())


def test_the_agent_loads_nothing_outside_its_list() -> None:
    assert loaded() <= allowed()


def test_every_entry_of_the_list_is_really_used() -> None:
    reasons = {"cffi", "_cffi_backend", "pycparser"}  # come with cryptography, some lazily
    assert allowed() - reasons <= loaded("import edgefleet.security.signing")


@pytest.mark.parametrize("module", ["numpy", "click"])
def test_a_planted_dependency_is_found(module: str) -> None:
    assert not loaded(f"import {module}") <= allowed()
