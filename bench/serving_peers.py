"""CPU a request of other inference servers beside ours. Writes bench/out/serving_peers.json.

MLServer, the KServe SDK, LitServe and BentoML serve the same models as our serving process, each
from an environment of its own outside of the clone (``EDGEFLEET_PEERS``, or a folder of the user's
cache), installed from requirements/peers with exact versions and hashes. These are the newest
releases of November 2026, with the ONNX Runtime of our own lock, and with uvloop and httptools,
which uvicorn takes where they are installed. bench/peers has a program for each, written as the
peer's documentation does; its head names the settings. A peer that can batch is measured with and
without, and its better row counts.

Every server has one worker and the same core, the load has the other. The load is 16 connections of
bench/serving_load.py with the same 64 numbers as JSON: V2 for MLServer, KServe and ours, and
``{"input": [[...]]}`` for LitServe and BentoML. Ours and the peer take turns. The cost is the
processor time of all processes of a server divided by its answers, which other programs on the
machine change less than rates; the ratio is peer / ours of each turn, of which the median counts.
The ratio of the least of both is shown beside it: on a busy machine it is nearer to that of a quiet
one. Before the load an answer of each server is compared with that of the model in this process.

Three kinds of models: the 64-128-10 MLP, 5 and 30 ms of arithmetic, which a batch does not make
cheaper, and 5 ms of reading weights, which a batch does once for all of its rows. The last is the
case in which a server that waits for a batch is cheaper than ours.

``make bench-serving PEERS=1`` needs about ten minutes, and the network the first time. A peer that
cannot be installed or started is a row with the reason. The exit code is 1 if a ratio on the tiny
model is under its limit.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import onnxruntime
from result_file import machine, write
from serving_models import Serving, heavy, layers, tiny
from serving_peer import Missing, Peer, Variant, ask
from serving_requests import served, tiny_body

from edgefleet.protocol.serving import ServedRelease
from serving import LOAD_CORE, SERVER_CORE, load

LIMITS = {"mlserver": 20.0, "litserve": 30.0, "kserve": 25.0, "bentoml": 50.0}
CONNECTIONS = 16
ROUNDS = 5
ROUND_S = 1.5
WARM_UP_S = 1.0
V2_PATH, PLAIN_PATH = "/v2/models/m/infer", "/predict"


VARIANTS = (
    Variant("mlserver", 1, V2_PATH),
    Variant("mlserver", CONNECTIONS, V2_PATH),
    Variant("litserve", 1, PLAIN_PATH),
    Variant("litserve", CONNECTIONS, PLAIN_PATH),
    Variant("kserve", 1, V2_PATH),
    Variant("bentoml", 1, PLAIN_PATH),
    Variant("bentoml", CONNECTIONS, PLAIN_PATH),
)


class Row(msgspec.Struct, omit_defaults=True):
    """The cost of a request in microseconds of CPU. ``missing`` is the reason for no figures."""

    model: str
    server: str
    peer: str
    batch: int
    cpu_us: float = 0.0
    ours_us: float = 0.0
    ratio: float = 0.0
    ratio_of_least: float = 0.0
    ratios: tuple[float, ...] = ()
    per_s: float = 0.0
    ours_per_s: float = 0.0
    p50_us: float = 0.0
    ours_p50_us: float = 0.0
    private_mib: float = 0.0
    processes: int = 0
    missing: str = ""


Turn = tuple[Mapping[str, float], Mapping[str, float]]
"""The results of ``load`` for ours and for the peer, one after the other."""


def row_of(model: str, variant: Variant, turns: Sequence[Turn], **more: float) -> Row:
    """The medians of the turns. ``more`` are other fields of the row."""

    def middle(key: str, side: int) -> float:
        return median(turn[side][key] for turn in turns)

    def least(side: int) -> float:
        return min(turn[side]["cpu_us"] for turn in turns)

    ratios = tuple(peer["cpu_us"] / ours["cpu_us"] for ours, peer in turns)
    return Row(
        model, variant.name, variant.peer, variant.batch,
        cpu_us=middle("cpu_us", 1), ours_us=middle("cpu_us", 0),
        ratio=median(ratios), ratio_of_least=least(1) / least(0), ratios=ratios,
        per_s=middle("rate", 1), ours_per_s=middle("rate", 0),
        p50_us=middle("p50", 1), ours_p50_us=middle("p50", 0),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def best_ratios(rows: Sequence[Row], model: str) -> dict[str, float]:
    """By peer: the ratio of its cheaper variant. A peer without figures has none."""
    found: dict[str, float] = {}
    for row in rows:
        if row.model == model and not row.missing:
            found[row.peer] = min(row.ratio, found.get(row.peer, float("inf")))
    return found


def missed(ratios: Mapping[str, float]) -> list[str]:
    """The peers whose ratio is under its limit."""
    return [peer for peer, limit in LIMITS.items() if peer in ratios and ratios[peer] < limit]


HEAD = (
    f"{'model':16}{'server':20}{'CPU us':>10}{'ours us':>10}{'ratio':>8}{'least':>8}"
    f"{'per s':>9}{'ours':>8}{'MiB':>6}"
)


def line_of(row: Row) -> str:
    begin = f"{row.model:16}{row.server:20}"
    if row.missing:
        return f"{begin} not measured: {row.missing}"
    return (
        f"{begin}{row.cpu_us:10.1f}{row.ours_us:10.1f}{row.ratio:8.2f}{row.ratio_of_least:8.2f}"
        f"{row.per_s:9.0f}{row.ours_per_s:8.0f}{row.private_mib:6.0f}"
    )


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def values(client: int) -> list[float]:
    (tensor,) = json.loads(tiny_body(client))["inputs"]
    return tensor["data"]


def requests(path: str) -> list[bytes]:
    """A request of each connection, in the protocol that the path has."""
    if path == V2_PATH:
        return [request(path, tiny_body(client)) for client in range(CONNECTIONS)]
    bodies = [{"input": [values(client)]} for client in range(CONNECTIONS)]
    return [request(path, msgspec.json.encode(body)) for body in bodies]


def scores_in(body: bytes) -> list[float]:
    """The scores in an answer of any of the protocols."""
    answer = json.loads(body)
    if isinstance(answer, dict):
        answer = answer["outputs"][0]["data"] if "outputs" in answer else answer["output"]
    return np.asarray(answer, np.float64).ravel().tolist()


class Ours(Serving):
    def cpu_s(self) -> float:
        return self.tree_cpu_s()


def in_process(path: str) -> tuple[float, list[float]]:
    """CPU milliseconds of a run on the server's core, and the scores of the first request."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    rows = np.array([values(0)], np.float32)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    took: list[float] = []
    try:
        for _ in range(15):
            began = time.process_time()
            (scores,) = session.run(["scores"], {"x": rows})
            took.append((time.process_time() - began) * 1000)
    finally:
        os.sched_setaffinity(0, mine)
    return median(took), scores.ravel().tolist()


def sized(build: Callable[[int], ServedRelease], first: int, wanted_ms: float) -> ServedRelease:
    """The model of the size whose run costs about so much, by two measurements of smaller ones."""
    size = first
    for _ in range(2):
        took_ms, _ = in_process(build(size).artifact_path)
        size = max(1, round(size * wanted_ms / took_ms))
    return build(size)


def models(folder: Path) -> dict[str, Callable[[], ServedRelease]]:
    def arithmetic(number: int) -> ServedRelease:
        return layers(folder / f"layers-{number}.onnx", number)

    def weights(megabytes: int) -> ServedRelease:
        return heavy(folder / f"heavy-{megabytes}.onnx", "1", megabytes)

    return {
        "tiny": lambda: tiny(folder / "tiny.onnx"),
        "5 ms": lambda: sized(arithmetic, 4, 5.0),
        "30 ms": lambda: sized(arithmetic, 16, 30.0),
        "5 ms, weights": lambda: sized(weights, 34, 5.0),
    }


@contextmanager
def ours(folder: Path, release: ServedRelease) -> Iterator[Ours]:
    server = Ours(folder, SERVER_CORE)
    try:
        server.apply(served("m", release))
        yield server
    finally:
        server.end()


def check(name: str, body: bytes, wanted: Sequence[float]) -> None:
    """Raises Missing if the answer is not that of the model."""
    if not np.allclose(scores_in(body), wanted, rtol=1e-3, atol=1e-5):
        raise Missing(f"{name} answers {body[:200]!r}, not {wanted}")


def compare(
    model: str, server: Ours, variant: Variant, release: ServedRelease, seconds: float
) -> Row:
    """Ours and one peer in turn. A peer that fails is a row with the reason."""
    mine, theirs = requests(V2_PATH), requests(variant.path)
    _, wanted = in_process(release.artifact_path)
    check("our server", ask(server.address, mine[0]), wanted)
    with tempfile.TemporaryDirectory() as name:
        try:
            peer = Peer(variant, release.artifact_path, Path(name) / "log", SERVER_CORE)
        except Missing as why:
            return Row(model, variant.name, variant.peer, variant.batch, missing=str(why))
        try:
            check(variant.name, peer.wait_ready(theirs[0]), wanted)
            for one, asked in ((server, mine), (peer, theirs)):
                load(one, asked, CONNECTIONS, WARM_UP_S)
            turns = [
                (
                    load(server, mine, CONNECTIONS, seconds),
                    load(peer, theirs, CONNECTIONS, seconds),
                )
                for _ in range(ROUNDS)
            ]
            more = {"private_mib": peer.private_mib(), "processes": len(peer.tree())}
            return row_of(model, variant, turns, **more)
        except Missing as why:
            return Row(model, variant.name, variant.peer, variant.batch, missing=str(why))
        finally:
            peer.end()


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU a request of other inference servers.")
    parser.add_argument("--seconds", type=float, default=ROUND_S, help="of load in each turn")
    parser.add_argument("--model", action="append", help="only this one; may be repeated")
    parser.add_argument("--peer", action="append", choices=LIMITS, help="only this one")
    options = parser.parse_args()
    with contextlib.suppress(PermissionError):  # servers and load before other programs, if allowed
        os.nice(-10)
    os.sched_setaffinity(0, {SERVER_CORE, LOAD_CORE})
    result: dict[str, object] = {"load_average": os.getloadavg(), "run_ms": {}}
    rows: list[Row] = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as name:
        for model, make in models(Path(name)).items():
            if options.model and model not in options.model:
                continue
            release = make()
            run_ms, _ = in_process(release.artifact_path)
            result["run_ms"] |= {model: run_ms}  # type: ignore[operator]
            with ours(Path(name), release) as server:
                for variant in VARIANTS:
                    if options.peer and variant.peer not in options.peer:
                        continue
                    rows.append(compare(model, server, variant, release, options.seconds))
                    print(line_of(rows[-1]), flush=True)
    ratios = best_ratios(rows, "tiny")
    too_low = missed(ratios)
    result |= {
        "rows": msgspec.to_builtins(rows),
        "tiny_ratios": ratios,
        "limits": LIMITS,
        "load_average_after": os.getloadavg(),
    }
    for peer, ratio in ratios.items():
        bad = "  MISSED" if peer in too_low else ""
        print(f"tiny, {peer}: {ratio:.1f} x, wanted at least {LIMITS[peer]:g}{bad}")
    written = write("serving_peers", result)
    print(f"runs {result['run_ms']} ms\n{machine()}\nload {os.getloadavg()}\nwritten to {written}")
    return 1 if too_low else 0


if __name__ == "__main__":
    sys.exit(main())
