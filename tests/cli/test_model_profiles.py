"""``model profiles``: the built-in hardware classes and those of the user."""

from pathlib import Path

import pytest

from edgefleet.optimize.profiles import PROFILES
from support.command_line import CommandLine

MINE = (
    'runtimes = ["onnx"]\nprecision = "int8"\nprecisions = ["int8"]\nactivations = "uint8"\n'
    "max_batch = 2\nmemory_limit_mib = 16\n"
)


@pytest.fixture
def own(edgefleet: CommandLine) -> Path:
    """The folder of the user's profiles, with ``shop``."""
    folder = edgefleet.home / ".config" / "edgefleet" / "profiles"
    folder.mkdir(parents=True)
    (folder / "shop.toml").write_text(MINE)
    return folder


def test_built_in_and_own_profiles_are_listed(own: Path, edgefleet: CommandLine) -> None:
    said = edgefleet("model", "profiles", "--json")
    assert said.exit == 0, said.err
    answer = said.json
    rows = {one["name"]: one for one in answer["profiles"]}
    assert set(rows) == {*PROFILES, "shop"}
    assert [name for name, one in rows.items() if one["own"]] == ["shop"]
    assert (rows["shop"]["runtimes"], rows["shop"]["max_batch"]) == (["onnx"], 2)
    assert "shop" in answer["fitting"]  # onnxruntime and 16 MiB are here
    assert "coral_tpu" not in answer["fitting"]
    assert "shop (own)" in edgefleet("model", "profiles").out


@pytest.mark.parametrize(
    ("facts", "best"),
    [
        ('{"runtimes": ["onnx", "litert"], "arch": "aarch64", "memory_mib": 4096}', "raspberry_pi"),
        ('{"runtimes": ["onnx", "litert", "edgetpu"], "memory_mib": 1024}', "coral_tpu"),
        ('{"runtimes": ["onnx"], "memory_mib": 20}', "shop"),
        ('{"runtimes": [], "memory_mib": 1024}', ""),
    ],
)
def test_the_facts_of_a_device_select_its_profile(
    own: Path, tmp_path: Path, edgefleet: CommandLine, facts: str, best: str
) -> None:
    (tmp_path / "facts.json").write_text(facts)
    said = edgefleet("model", "profiles", "--for", str(tmp_path / "facts.json"))
    told = f"The best for it is {best}." if best else "No profile fits it."
    assert said.out.splitlines()[-1] == told
    (tmp_path / "facts.json").write_text('{"memory_mib": "much"}')
    said = edgefleet("model", "profiles", "--for", str(tmp_path / "facts.json"))
    assert (said.exit, "memory_mib" in said.err) == (2, True)


def test_a_wrong_profile_is_named_with_its_field(
    own: Path, tmp_path: Path, edgefleet: CommandLine
) -> None:
    bad = tmp_path / "shop.toml"
    bad.write_text(MINE.replace("max_batch = 2", "max_batch = 0"))
    said = edgefleet("model", "profiles", "--profiles", str(bad))
    assert said.exit == 2
    assert "shop.max_batch" in said.err
