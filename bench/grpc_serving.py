"""The cost of a request over gRPC, beside grpcio's own server. Writes bench/out/grpc.json.

The real serving process and grpcio (synchronous, four workers) serve the same model. They take
turns in one run: ROUNDS times SECONDS each. A server has the first core, the load the last one. The
cost is the processor time of the server's process for each request; the ratio is that of the
medians. Two models: one of 64-128-10 floats, one that reads an image of 602 kB.

``python bench/grpc_serving.py`` needs about a minute. The exit code is 1 if the small model's ratio
is under LEAST_RATIO.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median

import numpy as np
from grpc_load import Client, cpu_s, private_mib, run
from onnx import TensorProto, helper, numpy_helper
from result_file import write

from edgefleet.base.network import HttpLink
from edgefleet.protocol.release import Artifact, Quality, TensorSpec, Variant
from edgefleet.protocol.serving import Apply, ServedModel, ServedRelease, ServingStatus
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.grpc.protobuf import sized, varint

ROUNDS = 5
SECONDS = 2.0
WARM_UP_S = 0.5
LEAST_RATIO = 2.5
PATH = b"/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Case:
    name: str
    shape: tuple[int, ...]
    hidden: int
    connections: int
    streams: int


CASES = (
    Case("tiny", (64,), 128, 4, 4),
    Case("image_602k", (3, 224, 224), 0, 2, 2),
)


def build(folder: Path, case: Case) -> tuple[Path, Variant]:
    """A multilayer perceptron, or the sum of an image by its channels."""
    path = folder / f"{case.name}.onnx"
    rng = np.random.default_rng(1)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *case.shape])
    if case.hidden:
        weights = [
            numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)
            for name, size in (("a", (64, case.hidden)), ("b", (case.hidden, 10)))
        ]
        nodes = [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["z"]),
            helper.make_node("Softmax", ["z"], ["scores"]),
        ]
        size = 10
    else:
        weights = [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")]
        nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["scores"], keepdims=0)]
        size = 3
    made = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", size])
    graph = helper.make_graph(nodes, "m", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = model.SerializeToString()
    path.write_bytes(data)
    artifact = Artifact(sha256=sha256(data).hexdigest(), size_bytes=len(data))
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, *case.shape)),)
    outputs = (TensorSpec(name="scores", datatype="FP32", shape=(-1, size)),)
    variant = Variant(
        profile="bench", runtime="onnx", precision="fp32", artifact=artifact, inputs=inputs,
        outputs=outputs, max_batch=1, memory_limit_mib=512,
    )  # fmt: skip
    return path, variant


def request(case: Case, model: str) -> bytes:
    """A ModelInferRequest with raw contents."""
    shape = sized(3, b"".join(map(varint, (1, *case.shape))))
    tensor = sized(1, b"x") + sized(2, b"FP32") + shape
    data = np.random.default_rng(2).normal(size=case.shape).astype(np.float32).tobytes()
    return sized(1, model.encode()) + sized(5, tensor) + sized(7, data)


@contextmanager
def ours(folder: Path, path: Path, variant: Variant) -> Iterator[tuple[int, int]]:
    control = folder / "control.sock"
    process = subprocess.Popen(
        [*("taskset", "-c", "0"), sys.executable, "-m", "edgefleet.serving", "--listen",
         "127.0.0.1:0", "--serve-grpc", "127.0.0.1:0", "--control-socket", str(control)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        quality = Quality(output="scores", scores="probabilities") if path.stem == "tiny" else None
        release = ServedRelease(
            release="1", artifact_path=str(path), variant=variant, quality=quality
        )
        wanted = Apply(generation=1, models=(ServedModel(model="m", confirmed=release),))
        link = HttpLink(f"unix:{control}")
        answer = link.request("POST", "/control/apply", body=encode(wanted), timeout_s=60)
        status = decode(answer.body, ServingStatus)
        link.close()
        yield process.pid, int(status.grpc.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def reference(path: Path) -> Iterator[tuple[int, int]]:
    script = Path(__file__).with_name("grpc_reference.py")
    process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, str(script), str(path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(20)


def measure(case: Case, pid: int, port: int) -> tuple[float, float]:
    """The processor time of the server for each request, in us, and the requests each second."""
    message = request(case, "m")
    clients = [
        Client(("127.0.0.1", port), PATH, message, case.streams) for _ in range(case.connections)
    ]
    try:
        for client in clients:
            client.begin()
        run(clients, WARM_UP_S)
        before_s = cpu_s(pid)
        done, took_s = run(clients, SECONDS)
        used_s = cpu_s(pid) - before_s
        assert done, "no call ended"
        assert not any(one.failed for one in clients), "a call was reset"
        return used_s / done * 1e6, done / took_s
    finally:
        for client in clients:
            client.socket.close()


def compare(case: Case) -> dict[str, object]:
    rows: dict[str, list[tuple[float, float]]] = {"ours": [], "grpcio_sync4": []}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path, variant = build(folder, case)
        with ours(folder, path, variant) as own, reference(path) as other:
            for _ in range(ROUNDS):
                rows["ours"].append(measure(case, *own))
                rows["grpcio_sync4"].append(measure(case, *other))
            memory = {"ours": private_mib(own[0]), "grpcio_sync4": private_mib(other[0])}
    result: dict[str, object] = {}
    for name, measured in rows.items():
        result[name] = {
            "cpu_us": round(median(cpu for cpu, _ in measured), 1),
            "cpu_us_rounds": [round(cpu, 1) for cpu, _ in measured],
            "per_s": round(median(rate for _, rate in measured)),
            "private_mib": round(memory[name], 1),
        }
    result["cpu_ratio"] = round(
        median(cpu for cpu, _ in rows["grpcio_sync4"]) / median(cpu for cpu, _ in rows["ours"]), 2
    )
    return result


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with contextlib.suppress(PermissionError):  # servers and load before other programs, if allowed
        os.nice(-10)
    result = {case.name: compare(case) for case in CASES}
    for name, one in result.items():
        print(f"{name}: {one}")
    ratio = result["tiny"]["cpu_ratio"]
    path = write("grpc", {"grpc_tiny_vs_grpcio_sync4": ratio, **result})
    print(f"{path}: grpc_tiny_vs_grpcio_sync4 {ratio}, at least {LEAST_RATIO}")
    return 0 if isinstance(ratio, float) and ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
