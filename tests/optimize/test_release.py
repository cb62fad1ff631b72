"""Release folders and their manifests, and the errors of invalid folders."""

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.examples import FOLDER
from edgefleet.optimize.release_folder import BuiltRelease, build_release
from edgefleet.protocol.release import Quality, TensorSpec
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.serving.prove import prove

DIGITS = FOLDER / "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid release folder that a test may damage."""
    return shutil.copytree(DIGITS / "release-2", tmp_path / "release")


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "release.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refusal(folder: Path) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        build_release(folder, created_at=1.0)
    return caught.value


def test_a_folder_becomes_a_manifest_that_names_every_file(folder: Path) -> None:
    built = build_release(folder, created_at=12.5)
    manifest = built.manifest
    assert (manifest.model, manifest.release, manifest.parent) == ("digits", "2", "1")
    assert manifest.created_at == 12.5
    assert manifest.quality == Quality(output="probabilities", scores="probabilities")
    assert manifest.golden.cases == 397
    assert {variant.profile: variant.precision for variant in manifest.variants} == {
        "jetson_nano": "fp16",
        "raspberry_pi": "int8",
        "coral_tpu": "int8",
        "generic_x86": "fp32",
    }
    pixels = TensorSpec(name="pixels", datatype="FP32", shape=(-1, 64))
    assert all(variant.inputs == (pixels,) for variant in manifest.variants)
    named = {manifest.golden.artifact, *(variant.artifact for variant in manifest.variants)}
    assert {artifact.sha256 for artifact in named} == built.files.keys()
    for artifact in named:
        data = built.files[artifact.sha256].read_bytes()
        assert sha256(data).hexdigest() == artifact.sha256
        assert len(data) == artifact.size_bytes


def test_variants_may_share_a_file(folder: Path) -> None:
    built = build_release(folder, created_at=1.0)
    pi, coral = (v for v in built.manifest.variants if v.precision == "int8")
    assert pi.artifact == coral.artifact
    assert (pi.memory_limit_mib, coral.memory_limit_mib) == (1024, 512)
    assert len(built.files) == 4


def test_two_names_of_the_same_bytes_are_one_artifact(folder: Path) -> None:
    shutil.copy(folder / "int8.onnx", folder / "coral.onnx")
    edit(folder, 'profile = "coral_tpu"\nprecision = "int8"\nfile = "int8.onnx"',
         'profile = "coral_tpu"\nprecision = "int8"\nfile = "coral.onnx"')  # fmt: skip
    assert len(build_release(folder, created_at=1.0).files) == 4


def test_the_same_folder_gives_the_same_manifest(folder: Path) -> None:
    again = build_release(folder, created_at=1.0)
    assert build_release(folder, created_at=1.0).manifest == again.manifest


def test_a_known_profile_fills_in_what_it_can_take(folder: Path) -> None:
    edit(folder, "max_batch = 4\nmemory_limit_mib = 3072\n", "")
    jetson = build_release(folder, created_at=1.0).manifest.variants[0]
    assert (jetson.max_batch, jetson.memory_limit_mib) == (4, 3072)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('model = "digits"', 'model = "no/slash"', "model"),
        ('model = "digits"', "model = 7", "model"),
        ('model = "digits"\n', "", None),
        ('release = "2"', 'release = ""', "release"),
        ('parent = "1"', 'parent = "2"', "parent"),
        ('parent = "1"', 'parnet = "1"', None),
        ("min_accuracy = 0.95", "min_accuracy = 95", "golden.min_accuracy"),
        ("min_agreement = 0.98", 'min_agreement = "high"', "golden.min_agreement"),
        ('file = "golden.npz"', 'file = "absent.npz"', "golden.file"),
        ('file = "golden.npz"', 'file = "../release/golden.npz/x"', "golden.file"),
        ('scores = "probabilities"', 'scores = "guesses"', "quality.scores"),
        ('output = "probabilities"', 'output = "probs"', "quality.output"),
        ("min_requests = 20", "min_requests = 0", "quality.min_requests"),
        ('profile = "raspberry_pi"', 'profile = "jetson_nano"', "variant[1].profile"),
        ('profile = "raspberry_pi"', 'profile = "rasp pi"', "variant[1].profile"),
        ('precision = "int8"', 'precision = "int4"', "variant[1].precision"),
        ("max_batch = 1", "max_batch = 0", "variant[1].max_batch"),
        ("max_batch = 1", "max_batches = 1", "variant[1]"),
        ('file = "int8.onnx"', 'file = "../../int8.onnx"', "variant[1].file"),
        ('file = "int8.onnx"', 'file = "/etc/hostname"', "variant[1].file"),
        ('file = "int8.onnx"', 'file = "."', "variant[1].file"),
        ('file = "int8.onnx"', 'file = "a\\u0000b"', "variant[1].file"),
        ('profile = "coral_tpu"\nprecision = "int8"\nfile = "int8.onnx"\nmax_batch = 1',
         'profile = "new_board"\nprecision = "int8"\nfile = "int8.onnx"', "variant[2].max_batch"),
        ("[golden]", "[golden", None),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_by_its_path(
    folder: Path, old: str, new: str, field: str | None
) -> None:
    edit(folder, old, new)
    error = refusal(folder)
    assert error.code == "release_file_invalid"
    assert error.field == field


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "int8.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "int8.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    assert (refusal(folder).code, refusal(folder).field) == (
        "release_file_invalid",
        "variant[1].file",
    )


def test_a_folder_without_a_release_file_says_what_to_name(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.code == "release_file_invalid"
    assert "release.toml" in error.hint


def test_a_release_file_without_end_is_not_read(folder: Path) -> None:
    (folder / "release.toml").write_text("# " + "x" * (1 << 20))
    assert refusal(folder).code == "release_file_invalid"


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "release.toml").write_bytes(b"model = '\xff'")
    assert refusal(folder).code == "release_file_invalid"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_model(path: Path) -> None:
    path.write_text("weights, honestly")


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x04N.")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(cut, "model_truncated"), (no_model, "not_a_model"), (pickled, "model_is_pickle")],
)
def test_a_file_that_is_no_model_is_named_by_its_variant(
    folder: Path, spoil: Callable[[Path], None], code: str
) -> None:
    spoil(folder / "fp32.onnx")
    error = refusal(folder)
    assert (error.code, error.field) == (code, "variant[3].file")
    assert "fp32.onnx" in error.message


def test_a_golden_set_that_fits_no_variant_names_its_array(folder: Path) -> None:
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["input.pixels"] = arrays["input.pixels"].reshape(-1, 8, 8)
    np.savez(folder / "golden.npz", **arrays)
    error = refusal(folder)
    assert (error.code, error.field) == ("golden_mismatch", "input.pixels")


def test_a_golden_set_must_fit_every_variant(folder: Path) -> None:
    model = onnx.load(folder / "fp32.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, folder / "fp32.onnx")
    error = refusal(folder)
    assert (error.code, error.field) == ("golden_mismatch", "input.image")


def test_a_model_of_one_fixed_batch_cannot_promise_another(folder: Path) -> None:
    model = onnx.load(folder / "fp32.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, folder / "fp32.onnx")
    assert refusal(folder).field == "variant[3].max_batch"


def test_the_quality_output_must_hold_class_scores(folder: Path) -> None:
    model = onnx.load(folder / "fp32.onnx")
    output = model.graph.output[0].type.tensor_type
    output.shape.dim.add().dim_value = 1
    onnx.save(model, folder / "fp32.onnx")
    assert refusal(folder).field == "quality.output"


NAMES = "".join(f"digit-{number}\n" for number in range(10))


def with_classes(folder: Path, text: str, output: str = "probabilities") -> None:
    (folder / "names.txt").write_text(text)
    edit(folder, "[[variant]]", f'[classes]\n{output} = "names.txt"\n\n[[variant]]')


def test_the_names_of_the_classes_are_in_the_manifest(folder: Path) -> None:
    files = build_release(folder, created_at=1.0).files
    with_classes(folder, NAMES)
    named = build_release(folder, created_at=1.0)
    (classes,) = named.manifest.classes
    assert (classes.output, list(classes.names)) == ("probabilities", NAMES.split())
    assert named.files.keys() == files.keys(), "the names are no artifact"


@pytest.mark.parametrize(
    ("text", "output", "message"),
    [
        (
            NAMES[8:], "probabilities",
            "names.txt: 9 names for output 'probabilities' of variant[0], which has 10.",
        ),
        (NAMES.replace("digit-4", " "), "probabilities", "names.txt, line 5: the name is empty."),
        (NAMES, "other", "names.txt: variant[0] has no output 'other'."),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused_with_file_and_line(
    folder: Path, text: str, output: str, message: str
) -> None:
    with_classes(folder, text, output)
    error = refusal(folder)
    assert (error.code, error.field) == ("release_file_invalid", f"classes.{output}")
    assert error.message == message
    (folder / "names.txt").unlink()
    assert "'names.txt' cannot be read" in refusal(folder).message


def built(release: str) -> BuiltRelease:
    return build_release(DIGITS / f"release-{release}", created_at=1.0)


def prove_release(built: BuiltRelease) -> tuple[ProveResult, ...]:
    """The proof that each device runs before activation; one result per variant."""
    golden = built.manifest.golden
    return tuple(
        prove(
            ProveRequest(
                variant=variant,
                golden=golden,
                artifact_path=str(built.files[variant.artifact.sha256]),
                golden_path=str(built.files[golden.artifact.sha256]),
            )
        )
        for variant in built.manifest.variants
    )


@pytest.mark.parametrize("release", ["1", "2", "3"])
def test_a_release_that_does_what_it_says_passes_the_publishers_check(release: str) -> None:
    results = prove_release(built(release))
    assert len(results) == 4
    assert all(result.passed for result in results)


def test_a_release_that_does_something_else_fails_on_every_variant() -> None:
    wrong = built("4")
    golden = wrong.manifest.golden
    results = prove_release(wrong)
    assert len(results) == 4
    for result in results:
        assert not result.passed
        assert result.reason == "golden_failed"
        assert result.accuracy < golden.min_accuracy - 0.1
        assert result.agreement < golden.min_agreement - 0.1


def test_a_file_changed_after_it_was_built_does_not_pass(folder: Path) -> None:
    before = build_release(folder, created_at=1.0)
    shutil.copy(DIGITS / "release-1" / "fp32.onnx", folder / "fp32.onnx")
    results = dict(
        zip((v.profile for v in before.manifest.variants), prove_release(before), strict=True)
    )
    assert not results["generic_x86"].passed
    assert results["jetson_nano"].passed
