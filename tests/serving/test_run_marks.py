"""The marks show which models ran when the serving process ended."""

import asyncio
import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http as triton

from edgefleet.base.errors import NetworkError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.run_marks import RECORD_BYTES, RECORDS, marked_models, record
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.run_times import RunTimes, size_class
from edgefleet.serving.runtime import PlainModel
from support.serving_process import serving
from support.tiny_models import classifier, pixels


class Observed(PlainModel):
    """A model that reads the marks while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[tuple[str, ...]] = []

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        self.found.append(marked_models(self.path.read_bytes()))
        if not inputs:
            raise ValueError
        return [np.zeros((1, 10), np.float32)]


def test_a_model_is_marked_while_it_runs_and_not_after(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    marks = RunMarks(file)
    model, observed = classifier(tmp_path / "m.onnx"), Observed(file)
    times = RunTimes()
    times.learn(((size_class({"pixels": pixels(1)}), 1.0), (0, 1.0)))  # on the event loop
    release = ActiveRelease("digits", model.served(), observed, marks=marks, times=times)
    release.infer({"pixels": pixels(1)}, ["probabilities"])
    assert observed.found == [("digits",)]
    assert marked_models(file.read_bytes()) == ()
    with pytest.raises(ValueError):
        release.infer({}, [])
    assert marked_models(file.read_bytes()) == ()
    asyncio.run(release.retire())
    assert file.read_bytes() == bytes(RECORD_BYTES * (RECORDS + 1))


def test_several_models_and_two_releases_of_one(tmp_path: Path) -> None:
    marks = RunMarks(tmp_path / "marks")
    places = [marks.reserve(name) for name in ("b", "a", "a", "c")]
    for place in places[:3]:
        marks.marks[place] = 1
    assert marked_models((tmp_path / "marks").read_bytes()) == ("a", "b")
    marks.release(places[1])
    assert marked_models((tmp_path / "marks").read_bytes()) == ("a", "b")
    marks.release(places[2])
    assert marked_models((tmp_path / "marks").read_bytes()) == ("b",)


def test_more_releases_than_records_run_without_a_name(tmp_path: Path) -> None:
    marks = RunMarks(tmp_path / "marks")
    places = [marks.reserve(f"m{index}") for index in range(RECORDS + 3)]
    for place in places[RECORDS:]:
        marks.marks[place] = 1
        marks.release(place)
    assert marked_models((tmp_path / "marks").read_bytes()) == ()
    marks.release(places[0])
    assert marks.reserve("again") == places[0]


def test_a_long_name_is_cut_and_damaged_content_names_none() -> None:
    marked = b"\1" + record("x" * 500)[1:]
    assert marked_models(marked) == ("x" * (RECORD_BYTES - 1),)
    assert marked_models(b"\1") == ()
    assert marked_models(b"") == ()


def test_without_room_on_the_disk_the_marks_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    marks = RunMarks(tmp_path / "marks")
    place = marks.reserve("digits")
    marks.marks[place] = 1
    assert marks.marks[place] == 1
    assert RunMarks(tmp_path / "no" / "folder").reserve("digits") == 0


@pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGKILL])
def test_the_marks_of_a_killed_process_name_the_model_that_ran(
    tmp_path: Path, sign: signal.Signals
) -> None:
    busy = classifier(tmp_path / "busy.onnx", hidden=40, max_batch=4096)
    idle = classifier(tmp_path / "idle.onnx")
    file = tmp_path / "control.running"
    with serving(tmp_path) as process:
        process.apply(busy.activate("1", "busy"), idle.activate("1", "idle"))
        body = pixels(4096)
        tensor = triton.InferInput("pixels", [4096, 64], "FP32").set_data_from_numpy(body)
        request, size = triton.InferenceServerClient.generate_request_body([tensor])
        headers = {"Inference-Header-Content-Length": str(size)}

        def ask() -> None:
            link = HttpLink(process.url)
            with contextlib.suppress(NetworkError):
                while True:
                    link.request("POST", "/v2/models/busy/infer", body=request, headers=headers)

        asking = threading.Thread(target=ask)
        asking.start()
        until = time.monotonic() + 60
        while marked_models(file.read_bytes()) != ("busy",) and time.monotonic() < until:
            pass
        os.kill(process.pid, signal.SIGSTOP)  # so that the run does not end before the kill
        ran = marked_models(file.read_bytes())
        os.kill(process.pid, sign)
        os.kill(process.pid, signal.SIGCONT)
        asking.join(60)
        process.stop()
    assert marked_models(file.read_bytes()) == ran
