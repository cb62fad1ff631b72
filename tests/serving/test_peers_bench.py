"""The comparison with other servers counts right, and a peer that is not there is a row."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "bench"))  # its modules import each other by name
try:
    import serving_peer
    import serving_peers as peers
    from serving_models import Process
finally:
    sys.path.pop(0)

FAKE = peers.Variant("fake", 1, peers.PLAIN_PATH)

PROGRAM = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = b'{"output": [0.25, 0.75]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(f"http://127.0.0.1:{sys.argv[2]}", flush=True)
server.serve_forever()
"""

BURNS = """
import os, time
child = os.fork()
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print("http://127.0.0.1:1", flush=True)
time.sleep(600)
"""


def turn(ours_us: float, peer_us: float) -> peers.Turn:
    return (
        {"cpu_us": ours_us, "rate": 9.0, "p50": 1.0},
        {"cpu_us": peer_us, "rate": 3.0, "p50": 2.0},
    )


def row(peer: str, batch: int, ratio: float, missing: str = "") -> peers.Row:
    return peers.Row("tiny", peer, peer, batch, ratio=ratio, missing=missing)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return True
    return state == "Z"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a peer of which PROGRAM is the server."""
    (tmp_path / "peers").mkdir()
    program = tmp_path / "peers" / "serve_fake.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(serving_peer, "HERE", tmp_path)
    monkeypatch.setattr(serving_peer, "environment", lambda _: Path(sys.executable))
    return program


def test_the_ratio_is_the_median_of_the_turns_not_of_the_costs() -> None:
    found = peers.row_of("tiny", FAKE, [turn(10, 400), turn(20, 600), turn(40, 400)], processes=2)
    assert found.ratios == (40, 30, 10)
    assert (found.ratio, found.cpu_us, found.ours_us) == (30, 400, 20)
    assert (found.ratio_of_least, found.per_s, found.ours_per_s, found.processes) == (40, 3, 9, 2)


def test_the_cheaper_way_of_a_peer_is_held_against_the_limit() -> None:
    rows = [row("mlserver", 1, 26), row("mlserver", 16, 19), row("kserve", 1, 25)]
    ratios = peers.best_ratios([*rows, row("bentoml", 1, 0, "no network")], "tiny")
    assert ratios == {"mlserver": 19, "kserve": 25}
    assert peers.missed(ratios) == ["mlserver"]


def test_a_peer_that_is_not_there_is_a_row_with_the_reason() -> None:
    line = peers.line_of(row("bentoml", 1, 0, "not installed: no network"))
    assert " ".join(line.split()) == "tiny bentoml not measured: not installed: no network"


def test_an_environment_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake.txt").write_text("not a requirement ==\n")
    monkeypatch.setenv("EDGEFLEET_PEERS", str(tmp_path / "cache"))
    with pytest.raises(serving_peer.Missing, match=r"not installed: (?!no reason)"):
        serving_peer.environment("fake", tmp_path)
    assert not list((tmp_path / "cache").glob("*/ready"))


def test_a_peer_answers_and_is_ended_with_its_children(fake: Path, tmp_path: Path) -> None:
    peer = serving_peer.Peer(FAKE, "model.onnx", tmp_path / "log", min(os.sched_getaffinity(0)))
    pids = peer.tree()
    try:
        body = peer.wait_ready(peers.requests(FAKE.path)[0])
        peers.check("fake", body, [0.25, 0.75])
        with pytest.raises(serving_peer.Missing, match="fake answers"):
            peers.check("fake", body, [0.75, 0.25])
    finally:
        peer.end()
    assert len(pids) == 2
    stops = time.monotonic() + 30
    while not all(map(gone, pids)) and time.monotonic() < stops:
        time.sleep(0.01)
    assert all(map(gone, pids))


def test_a_peer_that_does_not_start_says_why(fake: Path, tmp_path: Path) -> None:
    fake.write_text("raise SystemExit('no such backend')")
    with pytest.raises(serving_peer.Missing, match="not started: no such backend"):
        serving_peer.Peer(FAKE, "model.onnx", tmp_path / "log", min(os.sched_getaffinity(0)))


def test_the_cost_is_that_of_the_whole_tree() -> None:
    server = Process([sys.executable, "-c", BURNS])
    try:
        assert server.tree_cpu_s() >= 0.58
        assert server.tree_cpu_s() - server.cpu_s() >= 0.28
    finally:
        server.process.kill()
        server.end()


def test_all_protocols_carry_the_same_numbers_and_scores() -> None:
    for asked, number in zip(peers.requests(peers.PLAIN_PATH), range(16), strict=True):
        numbers = str(peers.values(number)).replace(" ", "").encode()
        assert numbers in asked
        assert numbers in peers.requests(peers.V2_PATH)[number]
    for body in (b'{"outputs": [{"data": [1, 2]}]}', b'{"output": [1, 2]}', b"[[1, 2]]"):
        assert peers.scores_in(body) == [1, 2]


@pytest.mark.parametrize("peer", peers.LIMITS)
def test_a_peer_is_locked_with_hashes_and_our_runtime(peer: str) -> None:
    text = (serving_peer.LOCKS / f"{peer}.txt").read_text()
    entries = re.split(r"^(?=[\w.-]+(?:\[\w+\])?==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [one.split()[0] for one in entries if "--hash=sha256:" not in one] == []
    ours = (ROOT / "requirements" / "dev.txt").read_text()
    runtime = re.search(r"^onnxruntime==\S+", ours, re.MULTILINE)
    assert runtime
    assert f"\n{runtime[0]} " in text
    assert not re.search(r"^torch==|--index-url|://", text, re.MULTILINE)
