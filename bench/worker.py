"""The cost of a worker process, beside the shared process. Writes bench/out/worker.json.

One real serving process serves the same model twice, in the shared process and in a worker
(``isolation = "process"``). A client sends requests to both in turn on one connection, so that both
see the same machine. The cost is the difference of the medians; that of the first deciles is shown
beside it, since other programs on the machine change it less. Between the requests one byte goes to
another process and back, in the cheapest ways that there are (``process_switch``): the cost is also
given as a multiple of such a trip, which depends less on the machine than the microseconds do.

Then a client asks a small model while another one is loaded beside it: one of 44 MB in a worker,
and one of almost 4 MB, the largest that is loaded in a thread of the shared process while other
models answer requests (``SHARED_LOAD_BYTES``). The slowest request during the load is compared with
the 99th percentile before it, and so is the slowest request of an equally long time without a load.

``python bench/worker.py`` needs about a minute. The exit code is 1 if a limit is exceeded.
"""

import multiprocessing
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from process_switch import ProcessSwitches
from result_file import machine, write
from serving_models import Serving

from edgefleet.protocol.release import Artifact, Quality, TensorSpec, Variant
from edgefleet.protocol.serving import ServedModel, ServedRelease

PAIRS = 3000
WARM_UP = 300
LIMIT_HOP_US = 40.0
LIMIT_PAUSE = 2.0
LOADS = 5
QUIET_S = 1.5
SETTLE_S = 0.2
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A request: the floats of its input, and whether all of them are an output, too."""

    name: str
    floats: int
    echo: bool


CASES = (
    Case("3 kB in, 10 scores out", 768, echo=False),
    Case("602 kB in, 10 scores out", 3 * 224 * 224, echo=False),
    Case("602 kB in, 602 kB out", 3 * 224 * 224, echo=True),
)


def build(
    path: Path, floats: int, *, echo: bool = False, layers: int = 0, wide: int = 1024
) -> Variant:
    """A model that costs next to nothing. ``layers`` adds matrices of ``wide`` x ``wide``."""
    weights = [numpy_helper.from_array(np.eye(floats, CLASSES, dtype=np.float32)[:64], "head")]
    ends = numpy_helper.from_array(np.array([64], np.int64), "end")
    starts = numpy_helper.from_array(np.array([0], np.int64), "start")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [helper.make_node("Slice", ["x", "start", "end", "axes"], ["part"])]
    last = "part"
    if layers:
        rng = np.random.default_rng(1)
        sizes = (64, *[wide] * layers, 64)
        for layer, (rows, columns) in enumerate(pairwise(sizes)):
            array = rng.normal(0, 0.02, (rows, columns)).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"w{layer}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"]))
            last = f"h{layer}"
    nodes += [
        helper.make_node("MatMul", [last, "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", CLASSES])]
    specs = [TensorSpec(name="scores", datatype="FP32", shape=(-1, CLASSES))]
    if echo:
        nodes.append(helper.make_node("Identity", ["x"], ["copy"]))
        outputs.append(helper.make_tensor_value_info("copy", TensorProto.FLOAT, ["b", floats]))
        specs.append(TensorSpec(name="copy", datatype="FP32", shape=(-1, floats)))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", floats])]
    graph = helper.make_graph(nodes, "bench", inputs, outputs, [*weights, starts, ends, axes])
    opset = helper.make_opsetid("", 17)
    data = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    path.write_bytes(data)
    return Variant(
        profile="bench",
        runtime="onnx",
        precision="fp32",
        artifact=Artifact(sha256=sha256(data).hexdigest(), size_bytes=len(data)),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, floats)),),
        outputs=tuple(specs),
        max_batch=1,
        memory_limit_mib=512,
    )


def released(path: Path, variant: Variant, release: str = "1") -> ServedRelease:
    quality = Quality(output="scores", scores="probabilities")
    return ServedRelease(release=release, variant=variant, quality=quality, artifact_path=str(path))


def megabytes(release: ServedRelease) -> str:
    return f"{release.variant.artifact.size_bytes / 1e6:.1f}"


class Client:
    """One connection that sends one raw tensor again and again."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._room = bytearray(4 << 20)

    def request(self, model: str, floats: int) -> bytes:
        body = np.full(floats, 0.5, np.float32).tobytes()
        head = (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: bench\r\n"
            f"Inference-Header-Content-Length: 0\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def ask(self, request: bytes) -> float:
        """Microseconds from the request to the end of its answer."""
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        view, got, wanted = memoryview(self._room), 0, 0
        while not wanted or got < wanted:
            got += self._socket.recv_into(view[got:])
            if not wanted and (end := self._room.find(b"\r\n\r\n", 0, got)) >= 0:
                head = bytes(self._room[:end]).lower()
                if not head.startswith(b"http/1.1 200"):
                    sys.exit(f"no answer: {bytes(self._room[:got])!r}")
                length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
                wanted = end + 4 + int(length)
        return (time.perf_counter_ns() - began) / 1000

    def close(self) -> None:
        self._socket.close()


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def hop(case: Case) -> dict[str, object]:
    """The latency of one request in the shared process and in a worker, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variant = build(folder / "m.onnx", case.floats, echo=case.echo)
        release = released(folder / "m.onnx", variant)
        serving = Serving(folder)
        try:
            serving.apply(
                ServedModel(model="shared", confirmed=release),
                ServedModel(model="worker", confirmed=release, isolation="process"),
            )
            client = Client(serving.address)
            requests = [client.request(model, case.floats) for model in ("shared", "worker")]
            took_us: tuple[list[float], list[float]] = ([], [])
            switches = ProcessSwitches()
            for turn in range(WARM_UP + PAIRS):
                for index in (turn % 2, 1 - turn % 2):
                    us = client.ask(requests[index])
                    if turn >= WARM_UP:
                        took_us[index].append(us)
                switches.turn()
            client.close()
            switches.end()
        finally:
            serving.end()
    shared, worker = took_us
    switch_us = {way: round(median(took), 1) for way, took in switches.took_us.items()}
    more_us = median(worker) - median(shared)
    return {
        "case": case.name,
        "shared_us": {"p50": round(median(shared), 1), "p99": round(quantile(shared, 0.99), 1)},
        "worker_us": {"p50": round(median(worker), 1), "p99": round(quantile(worker, 0.99), 1)},
        "hop_us_p10": round(quantile(worker, 0.1) - quantile(shared, 0.1), 1),
        "hop_us_p50": round(more_us, 1),
        "switch_us_p50": switch_us,
        "hop_of_switch": {way: round(more_us / us, 2) for way, us in switch_us.items()},
        "hop_us_of_pairs": round(median(b - a for a, b in zip(shared, worker, strict=True)), 1),
    }


class Neighbour:
    """Asks the small model without a pause, in a process of its own.

    In a thread of this process a request would also wait for the other thread.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._requests, asker = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=keep_asking, args=(address, asker))
        self._process.start()
        self._requests.recv()  # it has begun

    def between(self, *spans: tuple[float, float]) -> list[list[float]]:
        """Latencies in microseconds of the requests in each span of ``time.perf_counter``."""
        self._requests.send(True)
        took: list[tuple[float, float]] = self._requests.recv()
        return [[us for at, us in took if start <= at <= end] for start, end in spans]

    def end(self) -> None:
        self._requests.send(False)
        self._requests.recv()
        self._process.join()


def keep_asking(address: tuple[str, int], asked: Connection) -> None:
    """The process of a neighbour. Sends the starts and the latencies of its requests."""
    client = Client(address)
    request = client.request("small", 768)
    took: list[tuple[float, float]] = []
    asked.send(True)
    goes_on = True
    while goes_on:
        at = time.perf_counter()
        took.append((at, client.ask(request)))
        time.sleep(0.0005)
        if asked.poll():
            goes_on = asked.recv()
            asked.send(took)
            took = []
    client.close()


def pauses() -> list[dict[str, object]]:
    """A neighbour's requests while another model is loaded, in both ways."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = released(folder / "s.onnx", build(folder / "s.onnx", 768))
        large = released(folder / "l.onnx", build(folder / "l.onnx", 768, layers=12))
        medium = released(folder / "m.onnx", build(folder / "m.onnx", 768, wide=960, layers=2))
        neighbour = ServedModel(model="small", confirmed=small)
        ways = {
            f"{megabytes(large)} MB in a worker (trial)": {"trial": large},
            f"{megabytes(medium)} MB in a thread (confirmed)": {"confirmed": medium},
        }
        serving = Serving(folder)
        found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        try:
            serving.apply(neighbour)
            client = Neighbour(serving.address)
            for _ in range(LOADS):
                for way, rounds in found.items():
                    began = time.perf_counter()
                    time.sleep(QUIET_S)
                    start = time.perf_counter()
                    serving.apply(neighbour, ServedModel(model="other", **ways[way]))
                    end = time.perf_counter()
                    serving.apply(neighbour)
                    time.sleep(SETTLE_S)
                    control = time.perf_counter()
                    time.sleep(end - start)
                    quiet, loading, without = client.between(
                        (began, start), (start, end), (control, control + end - start)
                    )
                    rounds.append((quantile(quiet, 0.99), max(loading), max(without)))
            client.end()
        finally:
            serving.end()
    return [
        {
            "load": way,
            "p99_us_before": round(median(p99 for p99, _, _ in rounds), 1),
            "slowest_us": [round(slowest, 1) for _, slowest, _ in rounds],
            "slowest_us_median": round(median(slowest for _, slowest, _ in rounds), 1),
            "ratio": round(median(slowest / p99 for p99, slowest, _ in rounds), 2),
            "ratio_without_load": round(median(other / p99 for p99, _, other in rounds), 2),
        }
        for way, rounds in found.items()
    ]


def main() -> int:
    hops = [hop(case) for case in CASES]
    print(f"{'a request, us':28}{'shared p50':>11}{'p99':>9}{'worker p50':>12}{'p99':>9}{'more':>8}"
          f"{'p10':>8}{'limit':>8}")  # fmt: skip
    for row in hops:
        shared, worker = row["shared_us"], row["worker_us"]
        assert isinstance(shared, dict)
        assert isinstance(worker, dict)
        print(f"{row['case']:28}{shared['p50']:11.1f}{shared['p99']:9.1f}{worker['p50']:12.1f}"
              f"{worker['p99']:9.1f}{row['hop_us_p50']:8.1f}"
              f"{row['hop_us_p10']:8.1f}{LIMIT_HOP_US:8.1f}")  # fmt: skip
    for row in hops:
        of = row["hop_of_switch"]
        assert isinstance(of, dict)
        trips = ", ".join(f"{value:.2f} x {way}" for way, value in of.items())
        print(f"{row['case']:28} more, in round trips of one byte: {trips}")
    loads = pauses()
    print(f"\n{'a neighbour, us':32}{'p99 before':>12}{'slowest':>10}{'ratio':>8}"
          f"{'no load':>9}{'limit':>8}")  # fmt: skip
    for row in loads:
        print(f"{row['load']:32}{row['p99_us_before']:12.1f}{row['slowest_us_median']:10.1f}"
              f"{row['ratio']:8.2f}{row['ratio_without_load']:9.2f}{LIMIT_PAUSE:8.2f}")  # fmt: skip
    result = {
        "hop": hops,
        "neighbour": loads,
        "limits": {"hop_us": LIMIT_HOP_US, "pause_of_p99": LIMIT_PAUSE},
    }
    print(f"{machine()}\nwritten to {write('worker', result)}")
    kept = all(float(str(row["hop_us_p50"])) <= LIMIT_HOP_US for row in hops) and all(
        float(str(row["ratio"])) <= LIMIT_PAUSE for row in loads
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
