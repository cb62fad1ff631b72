"""The page of a device and its figures, without a browser. tests/web/test_device_page.py has one."""

import base64
import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.bins import bucket, upper_edge_us
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.labels import Label
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.refused import Refused
from edgefleet.serving.rest import Rest
from edgefleet.serving.routes import MethodNotAllowed
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.runtime import PlainModel
from support.tiny_models import classifier


@pytest.fixture
def host(tmp_path: Path) -> ModelHost:
    model = classifier(tmp_path / "m.onnx")
    host = ModelHost()
    active = ActiveRelease("digits", model.served("3"), PlainModel(), marks=RunMarks())
    host.routes, host.generation = {"digits": active}, 4
    return host


def got(host: ModelHost, path: str, method: str = "GET") -> Reply:
    reply = Rest(host)(Request(method, path, "", {}, b""))
    assert isinstance(reply, Reply)
    return reply


def figures(host: ModelHost) -> Any:
    return json.loads(got(host, "/ui/figures").body)


def test_the_figures_are_the_counters_of_each_release(host: ModelHost) -> None:
    stats = host.routes["digits"].stats
    for us in (100, 100, 900):
        stats.succeeded(us)
    stats.failed()
    stats.refuse(Refused(Refusal.SHAPE, "No.", field="x"), "3")
    stats.confidence_sum, stats.confidence_count, stats.cpu_ns = 2.5, 3, 2_000_000
    stats.durations.ran(2, 5_000)
    stats.durations.answer(2, 1_000, 1_005_000, 1_000)
    stats.came("one")
    host.answers.add_all("digits", "3", ["a", "b"], [(1,), (2,)])
    host.answers.label("digits", [Label(id="a", truth=1), Label(id="b", truth=9)])
    found = figures(host)
    assert (found["generation"], found["unserved"]) == (4, [])
    assert 0 < found["process_bytes"] < 1 << 40
    assert 0 < found["memory"]["used_bytes"] <= found["memory"]["limit_bytes"]
    (one,) = found["models"]
    assert {name: one[name] for name in ("model", "release", "runtime", "on_trial", "worker")} == {
        "model": "digits", "release": "3", "runtime": "onnx", "on_trial": False, "worker": None,
    }  # fmt: skip
    assert (one["requests"], one["errors"], one["refused"]) == (4, 1, {"shape": 1})
    edges = [upper_edge_us(bucket(us)) for us in (100, 900)]
    assert one["latency_us"] == [[edges[0], 2], [edges[1], 1]]
    assert (one["latency_sum_us"], one["cpu_s"], one["queue_s"]) == (1_100, 0.002, 0.001)
    assert (one["confidence_sum"], one["confidence_count"]) == (2.5, 3)
    assert (one["items"], one["runs"], one["in_flight"]) == (2, 1, 1)
    assert one["oldest_in_flight_s"] >= 0
    assert one["last_answer_s"] >= 0
    assert (one["labelled"], one["correct"]) == (2, 1)


def test_a_device_without_a_release_has_figures_and_a_page() -> None:
    found = figures(ModelHost())
    assert (found["models"], found["unserved"]) == ([], [])
    assert got(ModelHost(), "/ui").status == 200


def test_the_page_needs_nothing_from_elsewhere_and_its_policy_allows_nothing_else(
    host: ModelHost,
) -> None:
    reply = got(host, "/ui")
    page, headers = reply.body.decode(), dict(reply.headers)
    assert reply.content_type == "text/html; charset=utf-8"
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", page) == []
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {
        "data:,", "metrics", "v2/models/stats", "v2/health/ready",
    }  # fmt: skip
    policy = headers["Content-Security-Policy"]
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inside) > 1_000
        digest = base64.b64encode(sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_the_address_alone_leads_to_the_page(host: ModelHost) -> None:
    reply = got(host, "/")
    assert (reply.status, dict(reply.headers)["Location"]) == (307, "ui")
    assert got(host, "/ui", "HEAD").status == 200
    for path in ("/ui", "/ui/figures", "/"):
        with pytest.raises(MethodNotAllowed):
            got(host, path, "POST")
    with pytest.raises(OperatorError, match="not_found"):
        got(host, "/ui/page.js")


def test_a_process_whose_page_nobody_asks_for_has_not_loaded_it() -> None:
    program = (
        "import sys, edgefleet.serving.server\n"
        "print([name for name in sys.modules if name.startswith('edgefleet.serving.page')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout == b"[]\n"
