"""Profiles as data files: the built-in ones, those of users, and the profile of a device."""

import re
from pathlib import Path

import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.profiles import BUILT_IN_FOLDER, PROFILES
from edgefleet.optimize.profiles.reading import read_file, read_folder, user_folder, with_own
from edgefleet.optimize.profiles.selection import fitting, selected
from edgefleet.protocol.device import Facts

MINE = """
runtimes = ["onnx"]
precision = "int8"
precisions = ["int8", "fp32"]
activations = "uint8"
max_batch = 2
memory_limit_mib = 256
"""


def facts(**changes: object) -> Facts:
    given: dict[str, object] = {
        "profile": "unknown", "agent_version": "1", "runtimes": ("onnx",), "arch": "x86_64",
        "memory_mib": 8192,
    }  # fmt: skip
    return Facts(**{**given, **changes})  # type: ignore[arg-type]


def test_the_classes_of_the_release_format_have_their_limits() -> None:
    got = {
        name: (one.runtime, one.precision, one.max_batch, one.memory_limit_mib)
        for name, one in PROFILES.items()
    }
    assert got["jetson_nano"] == ("tensorrt", "fp16", 4, 3072)
    assert got["raspberry_pi"] == ("litert", "int8", 1, 1024)
    assert got["coral_tpu"] == ("edgetpu", "int8", 1, 512)
    assert got["generic_x86"] == ("onnx", "fp32", 8, 4096)
    assert PROFILES["generic_x86"].activations == "uint8"
    assert {one.activations for one in PROFILES.values() if one.runtime != "onnx"} == {"int8"}


def test_each_file_of_the_folder_is_a_built_in_profile() -> None:
    assert set(PROFILES) == {one.stem for one in BUILT_IN_FOLDER.glob("*.toml")}


def test_a_profile_of_a_user_replaces_the_built_in_one(tmp_path: Path) -> None:
    own, named = tmp_path / "own", tmp_path / "named"
    own.mkdir(), named.mkdir()
    (own / "gateway.toml").write_text(MINE)
    (own / "arm64.toml").write_text(MINE)
    (named / "arm64.toml").write_text(MINE.replace("max_batch = 2", "max_batch = 3"))
    found = with_own(PROFILES, named, own)
    assert (found["gateway"].max_batch, found["arm64"].max_batch) == (2, 3)
    assert set(found) == {*PROFILES, "gateway"}
    assert with_own(PROFILES, named / "arm64.toml")["arm64"].max_batch == 3
    assert with_own(PROFILES, None, tmp_path / "missing") == PROFILES


def test_the_folder_of_the_user_follows_the_xdg_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "edgefleet" / "profiles"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (MINE.replace("max_batch = 2", "max_batch = 0"), "mine.max_batch", ">= 1"),
        (MINE.replace('"uint8"', '"float8"'), "mine.activations", "Invalid enum value 'float8'"),
        (MINE + 'colour = "red"', "mine", "unknown field `colour`"),
        (MINE.replace('runtimes = ["onnx"]', ""), "mine", "missing required field `runtimes`"),
        (MINE.replace('precision = "int8"', 'precision = "fp16"'), "mine.precision", "fp16"),
        (MINE.replace('"onnx"', '"litert"'), "mine.activations", "TFLite has no uint8"),
        (MINE + 'name = "other"', "mine.name", "names the profile 'other'"),
        ("runtimes = ", None, "is no TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(
    text: str, field: str | None, words: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(PublisherError, match=re.escape(words)) as caught:
        read_folder(tmp_path)
    assert (caught.value.code, caught.value.field) == ("profile_invalid", field)


def test_a_missing_file_folder_or_name_is_refused(tmp_path: Path) -> None:
    for read in (read_file, read_folder):
        with pytest.raises(PublisherError, match="read") as caught:
            read(tmp_path / "none")
        assert caught.value.code == "profile_invalid"
    bad = tmp_path / "-x-.toml"
    bad.write_text(MINE)
    with pytest.raises(PublisherError) as caught:
        read_file(bad)
    assert caught.value.field == "-x-.name"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "generic_x86"),
        ({"profile": "coral_tpu"}, "coral_tpu"),  # as the operator has set it
        ({"runtimes": ("onnx", "tensorrt"), "arch": "aarch64"}, "jetson_nano"),
        ({"runtimes": ("onnx", "litert"), "arch": "aarch64"}, "raspberry_pi"),
        ({"runtimes": ("litert", "edgetpu"), "arch": "aarch64"}, "coral_tpu"),
        ({"runtimes": ("litert",), "arch": "aarch64", "memory_mib": 900}, "phone_npu"),
        ({"arch": "aarch64"}, "arm64"),
        ({"arch": "riscv64"}, None),
        ({"memory_mib": 2048}, None),
        ({"models_memory_mib": 2048}, None),
    ],
)
def test_the_facts_of_a_device_select_its_profile(
    given: dict[str, object], wanted: str | None
) -> None:
    found = selected(facts(**given), PROFILES.values())
    assert (found.name if found else None) == wanted


def test_all_profiles_that_fit_are_listed_the_best_first() -> None:
    board = facts(runtimes=("onnx", "litert"), arch="aarch64")
    names = [one.name for one in fitting(board, PROFILES.values())]
    assert names == ["raspberry_pi", "phone_npu", "arm64"]
