"""Loading: the file that is loaded is the file that was checked; threads; the warm-up."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.serving import threads
from edgefleet.serving.checked_file import checked
from edgefleet.serving.golden_set import first_cases
from edgefleet.serving.limits import LEARN_RUNS
from edgefleet.serving.loading import load_model
from edgefleet.serving.run_times import size_class
from edgefleet.serving.threads import VARIABLE, set_thread_count, thread_count
from support.tiny_models import TinyModel, classifier, pixels


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "m.onnx")


def test_the_path_of_a_checked_file_is_that_of_the_open_file(model: TinyModel) -> None:
    whole = model.path.read_bytes()
    with checked(model.path, model.variant.artifact) as file:
        model.path.rename(model.path.with_suffix(".old"))
        model.path.write_bytes(b"another file under the same name")
        assert Path(file.path).read_bytes() == whole


def write_meanwhile(model: TinyModel) -> None:
    """Another process writes into the file while it is loaded."""
    write = f"open({str(model.path)!r}, 'r+b').write(b'x')"
    child = None
    try:
        with checked(model.path, model.variant.artifact):
            child = subprocess.Popen([sys.executable, "-c", write])
            # Without a lease the write comes through, with one the writer has to wait.
            while child.poll() is None and not _waits(child.pid):
                time.sleep(0.01)
    finally:
        assert child is not None
        child.kill()
        child.wait()


def test_a_file_that_is_written_to_while_it_is_loaded_is_refused(model: TinyModel) -> None:
    with pytest.raises(EdgefleetError, match="digest_mismatch"):
        write_meanwhile(model)


def _waits(pid: int) -> bool:
    """Whether the kernel lets the process wait for the lease of another one."""
    try:
        return "lease" in Path(f"/proc/{pid}/wchan").read_text() or any(
            "BREAKER" in line or "BREAKING" in line
            for line in Path("/proc/locks").read_text().splitlines()
        )
    except OSError:
        return False


def test_a_change_of_the_times_alone_shows_where_there_are_no_leases(
    model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet.serving.checked_file._lease", lambda _: False)
    with pytest.raises(EdgefleetError, match="digest_mismatch"):
        write_and_hide(model)


def write_and_hide(model: TinyModel) -> None:
    before = model.path.stat()
    with checked(model.path, model.variant.artifact), model.path.open("r+b") as file:
        file.write(b"x")
        file.flush()
        os.utime(model.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_sealed_copy_cannot_be_changed_and_a_later_change_of_the_file_is_harmless(
    model: TinyModel,
) -> None:
    whole = model.path.read_bytes()
    with checked(model.path, model.variant.artifact) as file:
        path = file.sealed_path()
        assert file.sealed_path() == path
        with pytest.raises(PermissionError), Path(path).open("r+b") as copy:
            copy.write(b"x")
        assert Path(path).read_bytes() == whole


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "other bytes"])
def test_what_is_not_the_artifact_is_refused(model: TinyModel, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "other bytes":
            path.write_bytes(model.path.read_bytes()[:-1])
        case _:
            pass
    code = "digest_mismatch" if kind == "other bytes" else "not_found"
    with pytest.raises(EdgefleetError, match=code), checked(path, model.variant.artifact):
        pass


def test_no_descriptor_is_left_open(model: TinyModel) -> None:
    load_model(model.path, model.variant)
    gc.collect()  # descriptors that other tests of this process left open close now
    before = len(list(Path("/proc/self/fd").iterdir()))
    load_model(model.path, model.variant)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("quota", "setting", "cpus", "wanted"),
    [
        (None, "", 8, 1), (0.5, "", 8, 1), (2.5, "", 8, 2), (4.0, "", 2, 2),
        (None, "3", 8, 3), (4.0, "1", 8, 1), (None, "9", 4, 4), (2.0, "0", 8, 2),
    ],
)  # fmt: skip
def test_threads_follow_the_setting_then_the_quota_and_never_the_number_of_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, setting: str, cpus: int, wanted: int
) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.delenv(VARIABLE, raising=False)
    if setting:
        set_thread_count(setting)
    assert thread_count() == wanted
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_number_of_threads_that_is_none_is_refused() -> None:
    for text in ("", "-1", "two", "1025"):
        with pytest.raises(OperatorError, match="setting_invalid"):
            set_thread_count(text)


def test_golden_cases_warm_a_model_up_and_zeros_teach_nothing(
    model: TinyModel, tmp_path: Path
) -> None:
    golden = tmp_path / "golden.npz"
    np.savez(golden, **{"input.pixels": pixels(3)})
    variant = replace(model.variant, max_batch=8)
    learnt = load_model(model.path, variant, golden=golden).times
    assert learnt.is_fast(size_class({"pixels": pixels(1)}))
    assert {size for size, _ in learnt.learnt()} == {
        size_class({"pixels": pixels(batch)}) for batch in (1, 8)
    }
    assert load_model(model.path, variant).times.learnt() == ()
    assert load_model(model.path, variant, golden=tmp_path / "none").times.learnt() == ()
    assert LEARN_RUNS <= 3, "the warm-up has as many runs"


@pytest.mark.parametrize("compressed", [False, True])
def test_only_the_first_cases_are_read(model: TinyModel, tmp_path: Path, compressed: bool) -> None:
    golden = tmp_path / "golden.npz"
    save = np.savez_compressed if compressed else np.savez
    save(golden, **{"input.pixels": pixels(20)})
    found = first_cases(golden, model.variant.inputs, 7)
    np.testing.assert_array_equal(found["pixels"], pixels(20)[:7])
    assert len(first_cases(golden, model.variant.inputs, 99)["pixels"]) == 20


def test_cases_of_another_shape_are_refused(model: TinyModel, tmp_path: Path) -> None:
    golden = tmp_path / "golden.npz"
    for arrays in ({"input.pixels": pixels(2)[:, :63]}, {"input.other": pixels(2)}):
        np.savez(golden, **arrays)
        with pytest.raises(EdgefleetError, match="golden_mismatch"):
            first_cases(golden, model.variant.inputs, 1)
