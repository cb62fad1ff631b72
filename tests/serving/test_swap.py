"""The live swap drops no request, and a release that cannot be loaded changes nothing."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.serving import Apply, ServedModel
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.routes import render_error
from support.asking import GUARD_S, Asker, announce, ask, cut, digits, two_models
from support.http1_wire import running
from support.serving_process import serving
from support.tiny_models import TinyModel, classifier, save


def swap_under_load(
    activate: Callable[[ServedModel], object],
    asker: Asker,
    models: dict[str, TinyModel],
    swaps: int,
) -> None:
    with asker:
        for number in range(swaps):
            release = "ba"[number % 2]
            activate(models[release].activate(release))
            asker.wait_for_answers(2)


@pytest.mark.parametrize("slow", [False, True], ids=["on the loop", "in the worker"])
def test_thirty_swaps_under_load_drop_nothing(tmp_path: Path, slow: bool) -> None:
    models = two_models(tmp_path, slow=slow)
    with serving(tmp_path) as process:
        process.activate(models["a"].activate("a"))
        asker = Asker(process.address, digits(models))
        swap_under_load(process.activate, asker, models, 30)
        assert asker.faults == []
        assert set(asker.answers) == {"a", "b"}
        assert sum(x != y for x, y in zip(asker.answers, asker.answers[1:], strict=False)) == 30


class UnloadsFirst(ModelHost):
    """Planted bug: the old release is removed before the new one is loaded."""

    async def apply(self, wanted: Apply) -> None:
        self.routes = {}
        await super().apply(wanted)


class NamesItBeforeItIsLoaded(ModelHost):
    """Planted bug: answers of the old release carry the name of the new one."""

    async def apply(self, wanted: Apply) -> None:
        for one in wanted.models:
            if one.model in self.routes and one.confirmed is not None:
                self.routes[one.model].release = one.confirmed.release
        await super().apply(wanted)


@pytest.mark.parametrize(
    ("host_class", "faulty"),
    [(ModelHost, False), (UnloadsFirst, True), (NamesItBeforeItIsLoaded, True)],
)
def test_the_load_finds_a_swap_that_drops_requests(
    tmp_path: Path, host_class: type[ModelHost], faulty: bool
) -> None:
    models = two_models(tmp_path)

    async def make() -> ModelHost:
        return host_class()

    host = asyncio.run(make())
    with running(OpenInference(host), render_error=render_error) as server:

        def activate(wanted: ServedModel) -> None:
            apply = Apply(generation=1, models=(wanted,))
            asyncio.run_coroutine_threadsafe(host.apply(apply), server.loop).result(GUARD_S)

        activate(models["a"].activate("a"))
        asker = Asker(f"127.0.0.1:{server.port}", digits(models))
        swap_under_load(activate, asker, models, 10)
        assert bool(asker.faults) is faulty


def test_activating_what_is_active_changes_nothing(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    with serving(tmp_path) as process:
        process.activate(model.activate("1"))
        ask(process, model)
        assert process.activate(model.activate("1")).stats.requests == 1
        assert process.activate(model.activate("2")).stats.requests == 0


def test_a_release_that_takes_over_again_counts_from_0(tmp_path: Path) -> None:
    """The agent takes all counts of a release that it did not see last for new ones."""
    model = classifier(tmp_path / "m.onnx")
    with serving(tmp_path) as process:
        process.activate(model.activate("1"))
        ask(process, model)
        trial = replace(model.activate("1"), trial=model.served("2"))
        assert process.activate(trial).stats.requests == 0
        ask(process, model)
        back = process.activate(model.activate("1"))
        assert (back.release, back.stats.requests) == ("1", 0)
        ask(process, model)
        assert process.model().stats.requests == 1


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x95" + bytes(40) + b".")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def another_model(path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    save(path, [node], [x], [y], [])


@pytest.mark.parametrize(
    ("damage", "announced", "code"),
    [
        (cut, False, "digest_mismatch"),
        (pickled, False, "digest_mismatch"),
        (gone, False, "not_found"),
        (cut, True, "not_a_model"),
        (pickled, True, "not_a_model"),
        (empty, True, "not_a_model"),
        (another_model, True, "model_unsupported"),
    ],
)
def test_what_cannot_be_loaded_leaves_the_old_release_serving(
    tmp_path: Path, damage: Callable[[Path], None], announced: bool, code: str
) -> None:
    good = classifier(tmp_path / "good.onnx")
    bad = classifier(tmp_path / "bad.onnx", seed=2)
    damage(bad.path)
    wanted = bad.activate("2")
    if announced:
        wanted = announce(wanted, bad.path)
    with serving(tmp_path) as process:
        process.activate(good.activate("1"))
        with pytest.raises(EdgefleetError) as caught:
            process.activate(wanted)
        assert caught.value.code == code
        assert process.model().release == "1"
        assert ask(process, good) == "1"


def test_a_quality_output_that_is_none_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    wanted = model.served("1")
    wanted = replace(wanted, quality=replace(wanted.quality, output="scores"))
    with serving(tmp_path) as process:
        with pytest.raises(
            EdgefleetError, match=r"release_file_invalid \(digits\): quality.output"
        ):
            process.activate(ServedModel(model="digits", confirmed=wanted))
        assert not process.status().models


def test_artifacts_outside_the_data_folder_are_not_loaded(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    outside = classifier(tmp_path / "m.onnx")
    model = classifier(inside / "m.onnx")
    with serving(tmp_path, "--data-dir", str(inside)) as process:
        with pytest.raises(EdgefleetError, match="not_found"):
            process.activate(outside.activate("1"))
        (inside / "link.onnx").symlink_to(outside.path)
        linked = replace(model.served("1"), artifact_path=str(inside / "link.onnx"))
        with pytest.raises(EdgefleetError, match="not_found"):
            process.activate(ServedModel(model="digits", confirmed=linked))
        assert process.activate(model.activate("1")).ready


def test_a_killed_process_comes_back_on_the_same_socket(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    with serving(tmp_path) as first:
        first.activate(model.activate("1"))
        first.kill()
    with serving(tmp_path) as second:
        assert not second.status().models
        second.activate(model.activate("1"))
        assert ask(second, model) == "1"


def test_sigterm_answers_what_is_under_way_and_ends_with_0(tmp_path: Path) -> None:
    model = two_models(tmp_path, slow=True)["a"]
    with serving(tmp_path) as process:
        process.activate(model.activate("1"))
        asker = Asker(process.address, digits({"1": model}))
        with asker:
            process.control.close()
            os.kill(process.pid, signal.SIGTERM)
            assert process.stop() == 0
        assert asker.answers
        refused = [fault for fault in asker.faults if "unreachable" not in fault]
        assert refused == []
    assert not process.socket.exists()
