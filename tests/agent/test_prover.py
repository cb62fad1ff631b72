"""The proof runs in its own process: the agent gets a result even if the candidate crashes it."""

import sys
import threading
from pathlib import Path

import pytest

from edgefleet.agent.prover import Prover
from edgefleet.agent.state import InstalledRelease
from edgefleet.agent.worker import Stopped, Token
from edgefleet.base.storage import FolderStorage
from edgefleet.protocol.serving import ProveResult
from support.agent_world import manifest
from support.waiting import until

MANIFEST = manifest("1")
INSTALLED = InstalledRelease.of(MANIFEST, "0" * 64, MANIFEST.variants[0])


def prover(folder: Path, script: str, *, timeout_s: float = 30.0) -> Prover:
    return Prover(FolderStorage(folder), (sys.executable, "-c", script), timeout_s=timeout_s)


def test_the_last_line_is_the_result_and_the_request_names_the_slots_files(tmp_path: Path) -> None:
    script = (
        "import json, sys; request = json.load(sys.stdin); print('warming up');"
        "print(json.dumps({'passed': True, 'detail': request['artifact_path'], 'cases': 4}))"
    )
    result = prover(tmp_path, script).prove("b", INSTALLED, Token())
    assert result == ProveResult(
        passed=True, detail=str(tmp_path / "models/digits/b/model.onnx"), cases=4
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; os.abort()", "ended with -6"),
        ("raise SystemExit('no such operator')", "no such operator"),
        ("print('{\"passed\": ')", "ended with 0"),
        ("import os; os._exit(0)", "no output"),
        ("import sys; sys.stdin.read(); x = bytearray(3 << 30)", "MemoryError"),
    ],
)
def test_a_candidate_that_ends_its_process_cannot_be_loaded(
    tmp_path: Path, script: str, said: str
) -> None:
    result = prover(tmp_path, script).prove("b", INSTALLED, Token())
    assert (result.passed, result.reason) == (False, "load_failed")
    assert said in result.detail


def test_a_proof_that_never_ends_is_ended(tmp_path: Path) -> None:
    script = "import threading; threading.Event().wait()"
    result = prover(tmp_path, script, timeout_s=0.2).prove("b", INSTALLED, Token())
    assert (result.passed, result.reason) == (False, "load_failed")
    assert "longer than 0.2 s" in result.detail


def test_a_proof_is_stopped_at_once_when_it_is_no_longer_wanted(tmp_path: Path) -> None:
    started, token = tmp_path / "started", Token()
    script = f"open({str(started)!r}, 'w').close(); import threading; threading.Event().wait()"

    def stop_once_started() -> None:
        try:
            until(started.exists, "The proof did not start.")
        finally:
            token.stop()

    stopper = threading.Thread(target=stop_once_started)
    stopper.start()
    with pytest.raises(Stopped):
        prover(tmp_path, script).prove("b", INSTALLED, token)
    stopper.join()
    with pytest.raises(Stopped):
        prover(tmp_path, script).prove("b", INSTALLED, token)
