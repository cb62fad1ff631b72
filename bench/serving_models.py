"""The models of the serving benchmark, and one process that serves them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from pod import Pod

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.release import Artifact, Quality, TensorSpec, Variant
from edgefleet.protocol.serving import Apply, ServedModel, ServedRelease, ServingStatus
from edgefleet.protocol.wire import decode, encode, error_from_answer

HERE = Path(__file__).parent
CLASSES = 10
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def tiny(path: Path) -> ServedRelease:
    """The 64-128-10 MLP that the figures of a tiny model are about."""
    return _dense(path, (64, 128, CLASSES), "1", max_batch=32)


def small(path: Path, release: str) -> ServedRelease:
    """A model of 0.6 MB, with other weights for each release."""
    return _dense(path, (64, 512, 256, CLASSES), release, max_batch=32)


def heavy(path: Path, release: str, megabytes: int) -> ServedRelease:
    """A model with weights of this size, in layers of 2048 x 2048."""
    layers = max(1, round(megabytes * 1e6 / 4 / 2048**2))
    return _dense(path, (64, *[2048] * (layers + 1), CLASSES), release, max_batch=1)


def layers(path: Path, number: int) -> ServedRelease:
    """64 rows of 512 numbers through layers of 512 x 512, which all have the same weights.

    Its cost is arithmetic, as that of a convolutional model, and not the reading of weights: a
    batch of several costs as much as its parts.
    """
    rng = np.random.default_rng(1)
    shapes = {"spread": (64, 64 * 512), "layer": (512, 512), "head": (512, CLASSES)}
    weights = [
        numpy_helper.from_array(
            rng.normal(0, (2 / shape[0]) ** 0.5, shape).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    weights.append(numpy_helper.from_array(np.array([-1, 64, 512], np.int64), "rows"))
    nodes = [
        helper.make_node("MatMul", ["x", "spread"], ["wide"]),
        helper.make_node("Reshape", ["wide", "rows"], ["r0"]),
    ]
    for layer in range(number):
        nodes.append(helper.make_node("MatMul", [f"r{layer}", "layer"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"r{number}"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return _released(path, nodes, weights, (64,), "1", max_batch=32)


def image(path: Path, side: int = 224) -> ServedRelease:
    """1 x 3 x ``side`` x ``side`` in, pooled to 3 numbers, 10 scores out."""
    rng = np.random.default_rng(1)
    head = numpy_helper.from_array(rng.normal(0, 1, (3, CLASSES)).astype(np.float32), "head")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return _released(path, nodes, [head], (3, side, side), "1", max_batch=1)


def repeater(path: Path, floats: int) -> ServedRelease:
    """``x`` [-1, N] in, the mean of its values ``floats`` times out: a long reply."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["scores"]),
    ]
    shape = numpy_helper.from_array(np.array([1, floats], np.int64), "shape")
    return _released(path, nodes, [shape], (-1,), "1", max_batch=1, out=floats, quality=False)


def _dense(path: Path, sizes: Sequence[int], release: str, max_batch: int) -> ServedRelease:
    rng = np.random.default_rng(int(release))
    nodes, weights, last = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        array = rng.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = f"m{layer}"
        if layer + 2 < len(sizes):
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    nodes.append(helper.make_node("Softmax", [last], ["scores"], axis=-1))
    return _released(path, nodes, weights, sizes[:1], release, max_batch)


def _released(
    path: Path,
    nodes: list[object],
    weights: list[object],
    shape: Sequence[int],
    release: str,
    max_batch: int,
    *,
    out: int = CLASSES,
    quality: bool = True,
) -> ServedRelease:
    named = [size if size > 0 else f"n{place}" for place, size in enumerate(shape)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", *named])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", out])]
    graph = helper.make_graph(nodes, "bench", inputs, outputs, weights)
    opset = helper.make_opsetid("", 17)
    data = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    path.write_bytes(data)
    variant = Variant(
        profile="bench",
        runtime="onnx",
        precision="fp32",
        artifact=Artifact(sha256=sha256(data).hexdigest(), size_bytes=len(data)),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, *shape)),),
        outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, out)),),
        max_batch=max_batch,
        memory_limit_mib=512,
    )
    scored = Quality(output="scores", scores="probabilities") if quality else None
    return ServedRelease(release=release, variant=variant, quality=scored, artifact_path=str(path))


def installed_environ() -> dict[str, str]:
    """The environment of an installed program: Python keeps its compiled modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _ticks(pid: int) -> list[int]:
    """User and system time, and both of the children that ended. Nothing if the process ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
    return [int(field) for field in fields[11:15]]


class Process:
    """A server process on one core, or any. ``url`` is the first line that it prints."""

    def __init__(
        self,
        command: Sequence[str],
        core: int | None = None,
        pod: Pod | None = None,
        errors: IO[bytes] | None = None,
    ) -> None:
        if pod is not None:  # a process that is in it from its first page on
            join = f"import os, sys; sys.path.insert(0, {str(HERE)!r}); from pod import Pod"
            paths = f"Pod(*map(__import__('pathlib').Path, {(str(pod.memory), str(pod.cpu))!r}), "
            run = "os.execv(sys.argv[1], sys.argv[1:])"
            command = [
                sys.executable, "-c",
                f"{join}; {paths}{pod.is_v1}).join(os.getpid()); {run}",
                *command,
            ]  # fmt: skip
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, mine if core is None else {core})  # inherited by the child
        try:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=installed_environ(),
            )
        finally:
            os.sched_setaffinity(0, mine)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        host, _, port = self.url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        self.pid = self.process.pid

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its workers end with it
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def cpu_s(self) -> float:
        """CPU seconds of the process so far."""
        return sum(_ticks(self.pid)[:2]) * TICK_S

    def tree_cpu_s(self) -> float:
        """CPU seconds of the process and its children, at any depth, also of those that ended."""
        return sum(sum(_ticks(pid)) for pid in self.tree()) * TICK_S

    def tree(self) -> list[int]:
        """The process and its children, at any depth."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    found += map(int, task.read_text().split())
                except OSError:  # the thread has ended
                    continue
        return found

    def memory_mib(self, *kinds: str) -> float:
        """Lines of smaps_rollup, such as ``Pss``, summed over the tree."""
        total_kib = 0
        for pid in self.tree():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # the process has ended
                continue
            total_kib += sum(
                int(line.split()[1]) for line in lines if line.partition(":")[0] in kinds
            )
        return total_kib / 1024

    def private_mib(self) -> float:
        return self.memory_mib("Private_Clean", "Private_Dirty")


class Serving(Process):
    """A real serving process."""

    def __init__(
        self,
        folder: Path,
        core: int | None = None,
        pod: Pod | None = None,
    ) -> None:
        control = folder / "control.sock"
        super().__init__(
            [sys.executable, "-m", "edgefleet.serving", "--listen", "127.0.0.1:0",
             "--control-socket", str(control)],
            core,
            pod,
        )  # fmt: skip
        self._control = HttpLink(f"unix:{control}")
        self._generation = 0

    def apply(self, *models: ServedModel) -> ServingStatus:
        try:
            return self.attempt(*models)
        except EdgefleetError as error:
            sys.exit(f"the models are not served: {error}")

    def attempt(self, *models: ServedModel) -> ServingStatus:
        """Raises the error of the server, which then serves on as before."""
        body = encode(Apply(generation=self._generation + 1, models=models))
        answer = self._control.request("POST", "/control/apply", body=body, timeout_s=120)
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)
        self._generation += 1
        return decode(answer.body, ServingStatus)

    def end(self) -> None:
        self._control.close()
        super().end()
