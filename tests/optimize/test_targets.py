"""The profiles that are optimised for: whose they are, their runtimes, and their accelerators."""

from pathlib import Path

import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.profiles import PROFILES
from edgefleet.optimize.targets import check_mapped, judges_speed, named_profiles, runtime_of
from support.tflite_digits import write_digits

MINE = """
runtimes = ["onnx"]
precision = "fp16"
precisions = ["fp16", "fp32"]
activations = "uint8"
max_batch = 2
memory_limit_mib = 256
"""


def test_profiles_of_a_user_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "edgefleet" / "profiles"
    folder.mkdir(parents=True)
    (folder / "board.toml").write_text(MINE)
    (tmp_path / "other.toml").write_text(MINE)
    board, pi = named_profiles(["board", "raspberry_pi"])
    assert (board.max_batch, pi) == (2, PROFILES["raspberry_pi"])
    (other,) = named_profiles(["other"], tmp_path / "other.toml")
    assert other.memory_limit_mib == 256
    with pytest.raises(PublisherError, match="no profile 'other'") as caught:
        named_profiles(["other"])
    assert caught.value.field == "profile"
    assert "coral_tpu" in caught.value.hint
    assert "board" in caught.value.hint
    assert str(folder) in caught.value.hint


@pytest.mark.parametrize(
    ("profile", "given", "runtime", "speed"),
    [
        ("raspberry_pi", ("onnx", "litert"), "litert", True),
        ("raspberry_pi", ("onnx",), "onnx", True),
        ("generic_x86", ("litert", "onnx"), "onnx", True),
        ("jetson_nano", ("litert", "onnx"), "onnx", False),  # TensorRT is not here
        ("coral_tpu", ("onnx", "litert"), "litert", False),
    ],
)
def test_a_profile_is_measured_in_its_own_runtime(
    profile: str, given: tuple[str, ...], runtime: str, speed: bool
) -> None:
    assert runtime_of(PROFILES[profile], given) == runtime
    assert judges_speed(PROFILES[profile], runtime) is speed


@pytest.mark.parametrize(
    ("profile", "given", "wanted"),
    [("coral_tpu", "onnx", "a TFLite file"), ("jetson_nano", "litert", "an ONNX file")],
)
def test_a_profile_without_a_file_for_its_runtime_is_refused(
    profile: str, given: str, wanted: str
) -> None:
    with pytest.raises(PublisherError, match=f"Profile {profile} runs ") as caught:
        runtime_of(PROFILES[profile], [given])
    assert (caught.value.code, caught.value.field) == ("model_unsupported", "model")
    assert caught.value.hint.startswith(f"Give {wanted} of the same model too")


def test_a_file_of_which_an_edge_tpu_runs_nothing_is_refused(tmp_path: Path) -> None:
    model = write_digits(tmp_path / "float.tflite")
    with pytest.raises(PublisherError, match="0 of 6 operators map") as caught:
        check_mapped(PROFILES["coral_tpu"], model)
    assert caught.value.code == "operators_unmapped"
    assert check_mapped(PROFILES["raspberry_pi"], model) == ""
