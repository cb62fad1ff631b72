"""docs/release-folder.md describes the keys that the code reads."""

import re
import shutil
import tomllib
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.errors import CATALOG, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.examples import FOLDER
from edgefleet.optimize import release_folder
from edgefleet.optimize.profiles import PROFILES
from edgefleet.optimize.release_folder import build_release
from support.lineages import statement

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "release-folder.md").read_text()


def release_folder_of_the_page(tmp_path: Path) -> Path:
    """A folder with the files that the example names, and one variant of the example."""
    folder = shutil.copytree(FOLDER / "digits" / "release-2", tmp_path / "release")
    artifact = sha256_hex((folder / "fp16.onnx").read_bytes())
    (folder / "lineage.json").write_bytes(msgspec.json.encode(statement([artifact])))
    (folder / "classes.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    return folder


def example() -> str:
    return re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]


def test_the_pages_example_builds(tmp_path: Path) -> None:
    folder = release_folder_of_the_page(tmp_path)
    (folder / "release.toml").write_text(example())
    built = build_release(folder, created_at=1.0).manifest
    assert [variant.profile for variant in built.variants] == ["jetson_nano"]


def test_the_module_shows_the_same_keys_as_the_page() -> None:
    shown = re.findall(r"^    (.*)$", release_folder.__doc__ or "", re.MULTILINE)
    assert _shape(tomllib.loads("\n".join(shown))) == _shape(tomllib.loads(example()))


def _shape(value: object) -> object:
    match value:
        case dict():
            return {key: _shape(item) for key, item in value.items()}
        case list():
            return [_shape(item) for item in value]
        case _:
            return type(value)


def test_every_key_of_the_example_is_explained() -> None:
    example_keys = set(re.findall(r"^(\w+) =", example(), re.MULTILINE))
    example_keys -= tomllib.loads(example())["classes"].keys()  # those are outputs
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert example_keys <= explained


def test_every_key_that_is_optional_is_marked_so(tmp_path: Path) -> None:
    folder = release_folder_of_the_page(tmp_path)
    lines = example().splitlines()
    for number, line in enumerate(lines):
        if "=" not in line:
            continue
        (folder / "release.toml").write_text("\n".join(lines[:number] + lines[number + 1 :]))
        if "optional" in line or "likewise" in line:
            build_release(folder, created_at=1.0)
        else:
            with pytest.raises(PublisherError):
                build_release(folder, created_at=1.0)


def test_the_table_of_profiles_is_the_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (p.name, p.precision, str(p.max_batch), str(p.memory_limit_mib)) for p in PROFILES.values()
    ]


def test_the_codes_that_the_page_names_exist() -> None:
    table = PAGE.partition("## Errors")[2]
    codes = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert codes
    assert all(code in CATALOG for code in codes)
