"""The wheel has all that the programs read, and the locks have what the wheel needs.

``make check-dist`` installs the wheel and runs demo and agents from it.
"""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from importlib.metadata import requires
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {"device": "", "all": "all"}
"""The extra that each lock is for."""

# Calls each reader of package data, and prints the files of the source tree that were opened.
PROBE = """
import sys
from pathlib import Path

opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)

import edgefleet
from click.testing import CliRunner
from edgefleet.cli.demo.command import _examples, _fields
from edgefleet.cli.demo.planted_faults import folder_of
from edgefleet.cli.demo.story import STORY
from edgefleet.cli.group import root
from edgefleet.hub.store.migrations import packaged
from edgefleet.optimize.release_folder import build_release
from edgefleet.sim.virtual import scenario
from edgefleet.web.answers import load_assets
from edgefleet.web.render import _ENVIRONMENT as pages

assert Path(edgefleet.__file__).is_relative_to(sys.argv[1]), edgefleet.__file__
examples = _examples(None)
for chapter in STORY:
    build_release(folder_of(None, chapter, examples, Path(sys.argv[2])), created_at=0.0)
assert all(field.read_bytes() for field in _fields(examples).values())
assert CliRunner().invoke(root, ["model", "examples", sys.argv[2]]).exit_code == 0
assert len(packaged()) >= 6
assert {"style.css", "live.js"} <= load_assets().keys()
for name in pages.list_templates():
    pages.get_template(name)
assert {"fleet.html", "parts/why.html"} <= set(pages.list_templates())
for name in scenario.names():
    scenario.load(name)
open(Path(sys.argv[3], "README.md")).close()  # planted: must be found
allowed = (sys.prefix, sys.base_prefix)
tree = sys.argv[3]
print(*sorted(name for name in opened if name.startswith(tree) and not name.startswith(allowed)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def closure(root: list[Requirement]) -> set[str]:
    """The distributions that ``root`` needs in this environment, with their own needs."""
    found: set[tuple[str, str]] = set()

    def visit(needs: Iterator[Requirement], extra: str) -> None:
        for need in needs:
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *need.extras):
                entry = (canonicalize_name(need.name), wanted)
                if entry not in found:
                    found.add(entry)
                    visit(map(Requirement, requires(need.name) or ()), wanted)

    visit(iter(root), "")
    return {name for name, _ in found}


def locked(name: str) -> dict[str, str]:
    """The versions of a lock, of the distributions that this environment needs."""
    rows = re.findall(
        r"^[\w.-]+==[^\\\n]*", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE
    )
    pinned = [Requirement(row.strip()) for row in rows]
    return {
        canonicalize_name(one.name): str(one.specifier)
        for one in pinned
        if one.marker is None or one.marker.evaluate()
    }


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    files = {
        str(path.relative_to(source))
        for path in (source / "edgefleet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged == files


def test_an_installed_wheel_reads_nothing_of_the_source_tree_but_what_is_planted(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, site, tmp_path / "examples", ROOT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / "README.md")]


def test_no_module_looks_for_files_beside_itself() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"\b__file__\b", path.read_text())
    ]
    assert found == []


def test_the_description_has_no_link_that_leads_nowhere_outside_of_the_tree(
    metadata: Message,
) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = str(metadata.get_payload())
    assert "pip install" in text
    assert re.findall(r"\]\((?!https?:)[^)]*\)|<(?:a|img)\b", text) == []


@pytest.mark.parametrize(("lock", "extra"), LOCKS.items())
def test_a_lock_has_what_the_wheel_needs_and_no_more(
    metadata: Message, lock: str, extra: str
) -> None:
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    mine = [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    for need in mine:
        need.marker = None
        assert need.specifier.contains(locked(lock)[need.name].removeprefix("=="))
    assert locked(lock).keys() == closure(mine)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_versions_that_the_tests_run_with_and_a_hash_for_each(lock: str) -> None:
    assert locked(lock).items() <= locked("dev").items()
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
