"""Models on a real MLflow server, which runs in an environment of its own (``make mlflow``)."""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.cli.demo.processes import reserve_port
from edgefleet.optimize import optimize
from edgefleet.optimize.cache import Cache
from edgefleet.optimize.inputs.conversion import Converter
from edgefleet.optimize.inputs.read_models import ModelReader
from edgefleet.optimize.recipe import Half, Recipe
from edgefleet.protocol.lineage import read_lineage
from edgefleet.serving.model_file import inspect_model
from support.digits_cnn import write_cnn, write_data

TOOLS = Path(os.environ.get("EDGEFLEET_TOOLS") or Path.home() / ".cache/edgefleet/tools")
PYTHON = TOOLS / "mlflow" / "bin" / "python"
PROGRAM = Path(__file__).parents[1] / "support" / "mlflow_models.py"
START_S = 500.0  # the first start makes the tables of its database

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="MLflow is missing: make mlflow"),
]


@dataclass(frozen=True)
class Logged:
    """The server, and the ids of the run and of the model on it."""

    url: str
    run_id: str
    model_id: str
    folder: Path


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert server.poll() is None, "the MLflow server ended"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the MLflow server did not answer within {START_S:.0f} s")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A server with a registered ONNX model and a pickle of the same run."""
    folder = tmp_path_factory.mktemp("mlflow")
    write_cnn(folder / "cnn.onnx")
    with reserve_port() as held:
        port = held.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
             "--artifacts-destination", folder / "artifacts", "--workers", "1"],
            cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(url, server)
            done = subprocess.run(
                [PYTHON, PROGRAM, url, folder / "cnn.onnx"],
                capture_output=True, text=True, check=False, env=environment, cwd=folder,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            yield Logged(url, *done.stdout.split()[-2:], folder)
        finally:
            os.killpg(server.pid, 15)
            server.wait(60)


def read(logged: Logged, address: str, work: Path) -> Any:
    (source,) = ModelReader(work, Converter(Cache(work / "cache")), logged.url).read([address])
    return source


def test_each_address_gives_the_model_and_its_run(logged: Logged, tmp_path: Path) -> None:
    addresses = (
        "models:/digits/1",
        "models:/digits@champion",
        f"models:/{logged.model_id}",
        f"runs:/{logged.run_id}/model",
    )
    digests = set()
    for number, address in enumerate(addresses):
        (tmp_path / str(number)).mkdir()
        source = read(logged, address, tmp_path / str(number))
        digests.add(source.sha256)
        assert source.facts.inputs == inspect_model(logged.folder / "cnn.onnx").inputs
        assert source.lineage["mlflow_address"] == address
        assert source.lineage["mlflow_run_id"] == logged.run_id
        assert source.lineage["mlflow_params"] == {"epochs": "5", "note": "x" * 500}
        assert source.lineage["mlflow_metrics"] == {"accuracy": 0.75, "loss": 0.25}
        version = "1" if "digits" in address else None
        assert source.lineage.get("mlflow_model_version") == version
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("models:/digits/7", "not_a_model", "has no models:/digits/7"),
        ("models:/digits@none", "not_a_model", "has no models:/digits@none"),
        ("models:/other/1", "not_a_model", "has no models:/other/1"),
        ("runs:/{run}/other", "not_a_model", "no file MLmodel"),
        ("runs:/{run}/pickled", "model_is_pickle", "the flavours python_function, sklearn"),
    ],
)
def test_what_the_server_has_not_is_refused(
    logged: Logged, tmp_path: Path, address: str, code: str, told: str
) -> None:
    with pytest.raises(PublisherError, match=told) as caught:
        read(logged, address.format(run=logged.run_id), tmp_path)
    assert caught.value.code == code


def test_a_registered_model_is_optimised_with_its_run_in_the_lineage(
    logged: Logged, tmp_path: Path
) -> None:
    write_data(tmp_path / "train.npz", cases=60, train=True)
    write_data(tmp_path / "test.npz", cases=397)
    outcome = optimize(
        "models:/digits@champion", profiles=["generic_x86"], calibration=tmp_path / "train.npz",
        evaluate=tmp_path / "test.npz", model="digits", release="2", out=tmp_path / "out",
        keep=0.9, cache_dir=tmp_path / "cache", tracking_uri=logged.url,
        recipes=(Recipe(runtime="onnx", steps=(Half(),)),),
    )  # fmt: skip
    (tried,) = outcome.profiles[0].tried
    # FP16 is half the size; only a busy machine makes it "slower".
    assert tried.judgement.refused in (None, "slower")
    if outcome.folder is None:
        return
    statement = read_lineage((tmp_path / "out" / "lineage.json").read_bytes())
    source = statement.predicate.build_definition.resolved_dependencies[0]
    assert source.annotations["mlflow_run_id"] == logged.run_id
    assert source.annotations["mlflow_metrics"] == {"accuracy": 0.75, "loss": 0.25}
