"""Metrics and alert rules of the inference port, with Prometheus itself."""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec import json
from tritonclient import http as triton

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.labels import ModelLabels, ReleaseLabels
from edgefleet.serving.metric_aliases import of_labels, of_release
from edgefleet.serving.stats import Stats
from support.serving_process import serving
from support.tiny_models import classifier, pixels

RULES = Path(__file__).parents[2] / "docs" / "device-alerts.yml"
LABELS = '{instance="d1", model="digits", release="1"}'

# Each alert with series that raise it, and with series that must not: value by minute.
BUCKETS = 'edgefleet_inference_duration_seconds_bucket{instance="d1",model="digits",release="1",le='
CASES = {
    "EdgefleetInferenceSlow": (
        {f'{BUCKETS}"0.065536"}}': "0+80x20", f'{BUCKETS}"0.131072"}}': "0+100x20",
         f'{BUCKETS}"+Inf"}}': "0+100x20"},
        {f'{BUCKETS}"0.065536"}}': "0+90x20", f'{BUCKETS}"0.131072"}}': "0+100x20",
         f'{BUCKETS}"+Inf"}}': "0+100x20"},
    ),
    "EdgefleetInferenceErrors": (
        {f"edgefleet_inference_errors_total{LABELS}": "0+6x20",
         f"edgefleet_inference_requests_total{LABELS}": "0+100x20"},
        {f"edgefleet_inference_errors_total{LABELS}": "0+4x20",
         f"edgefleet_inference_requests_total{LABELS}": "0+100x20"},
    ),
    "EdgefleetMemoryHigh": (
        {'edgefleet_memory_used_bytes{instance="d1",of="cgroup"}': "81x20",
         'edgefleet_memory_limit_bytes{instance="d1",of="cgroup"}': "100x20"},
        {'edgefleet_memory_used_bytes{instance="d1",of="cgroup"}': "79x20",
         'edgefleet_memory_limit_bytes{instance="d1",of="cgroup"}': "100x20"},
    ),
    "EdgefleetNotServing": (
        {'edgefleet_serving_ready{instance="d1"}': "0x20"},
        {'edgefleet_serving_ready{instance="d1"}': "1x20"},
    ),
}  # fmt: skip


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: install the Debian package prometheus")
    return path


def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(RULES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, f"{len(CASES)} rules found" in done.stdout) == (0, True), done.stderr


def test_each_alert_fires_at_its_limit_and_not_below_it(tmp_path: Path) -> None:
    """``promtool test rules`` with series by minute."""
    tests = []
    for alert, both in CASES.items():
        for fires, series in zip((True, False), both, strict=True):
            given = [{"series": name, "values": values} for name, values in series.items()]
            text = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
            wanted = [{"labels": "{}", "value": 1}] if fires else []
            case = {"expr": text, "eval_time": "15m", "exp_samples": wanted}
            tests.append({"interval": "1m", "input_series": given, "promql_expr_test": [case]})
    file = tmp_path / "tests.yml"
    file.write_bytes(json.encode({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_aliases_have_the_values_of_the_counters() -> None:
    stats = Stats()
    stats.succeeded(100)
    stats.durations.ran(2, 3_000)
    stats.durations.answer(2, 1_000, 5_000, 4_000)
    stats.failed()
    stats.refuse(OperatorError("bad_request", "no"), "1")
    found = {
        (one.name, one.labels.get("reason", "")): one.value
        for one in of_release("digits", "1", stats)
    }
    assert found == {
        ("nv_inference_request_success", ""): 1,
        ("nv_inference_request_failure", "BACKEND"): 1,
        ("nv_inference_request_failure", "REJECTED"): 0,
        ("nv_inference_request_failure", "OTHER"): 1,
        ("nv_inference_count", ""): 2,
        ("nv_inference_exec_count", ""): 1,
        ("nv_inference_request_duration_us", ""): 10,
        ("nv_inference_queue_duration_us", ""): 2,
        ("nv_inference_compute_input_duration_us", ""): 1,
        ("nv_inference_compute_infer_duration_us", ""): 3,
        ("nv_inference_compute_output_duration_us", ""): 4,
        ("nv_inference_pending_request_count", ""): 0,
        ("edge_ai_inferences_total", ""): 2,
    }


def test_accuracy_is_that_of_the_labelled_answers_and_absent_without_them() -> None:
    releases = (
        ReleaseLabels(release="1", labelled=4, correct=3),
        ReleaseLabels(release="2", labelled=0, correct=0),
    )
    found = list(of_labels(ModelLabels(model="digits", releases=releases)))
    assert [(one.labels["release"], one.value) for one in found] == [("1", 0.75)]


@pytest.mark.long
def test_prometheus_scrapes_a_device(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    with serving(tmp_path) as process, socket.socket() as probe:
        process.activate(model.activate("1"))
        with triton.InferenceServerClient(process.address) as client:
            for _ in range(5):
                given = triton.InferInput("pixels", [1, 64], "FP32").set_data_from_numpy(pixels(1))
                client.infer("digits", [given])
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        config = tmp_path / "prometheus.yml"
        jobs = [{"job_name": "edge", "static_configs": [{"targets": [process.address]}]}]
        settings = {
            "global": {"scrape_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }
        config.write_bytes(json.encode(settings))
        server = subprocess.Popen(
            [program("prometheus"), f"--config.file={config}", f"--web.listen-address={address}",
             f"--storage.tsdb.path={tmp_path / 'tsdb'}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert asked(address, "edge_ai_inferences_total") == 5
            assert asked(address, "nv_inference_request_success") == 5
            assert asked(address, "edgefleet_serving_ready") == 1
            assert (
                0 < asked(address, "edgefleet_memory_used_bytes/edgefleet_memory_limit_bytes") < 1
            )
        finally:
            server.terminate()
            server.wait(30)


def asked(address: str, query: str) -> float:
    """The value of a query with one result, once there is one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            link = HttpLink(f"http://{address}")
            answer = link.request("GET", f"/api/v1/query?query={quote(query)}", timeout_s=5)
            link.close()
            found = json.decode(answer.body)["data"]["result"] if answer.status == 200 else []
        except NetworkError:
            found = []
        if found:
            return float(found[0]["value"][1])
        time.sleep(0.3)
    raise AssertionError(f"no value of {query}")
