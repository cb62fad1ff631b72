"""Runs a publisher's model in a child process: a model that crashes ends only the child."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.optimize.new_release import Runner
from edgefleet.optimize.release_folder import BuiltRelease
from edgefleet.protocol.release import Variant
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode, error_from_problem
from edgefleet.serving.answer import AnswerRequest

PROOF_TIMEOUT_S: Final = 900.0
_ONNX: Final = ("serving", "onnxruntime", "ONNX Runtime")
_LITERT: Final = ("serving,litert", "ai_edge_litert", "LiteRT")
_PACKAGES: Final = {"onnx": _ONNX, "tensorrt": _ONNX, "litert": _LITERT, "edgetpu": _LITERT}


def prove(
    built: BuiltRelease, variant: Variant, *, timeout_s: float = PROOF_TIMEOUT_S
) -> ProveResult:
    """Run the golden set on a variant, in the runtime of this machine, as a device does.

    Raises DeviceError ``runtime_missing``, PublisherError ``golden_failed`` or
    ``model_unsupported``.
    """
    golden = built.manifest.golden
    request = ProveRequest(
        variant=variant,
        golden=golden,
        artifact_path=str(built.files[variant.artifact.sha256].absolute()),
        golden_path=str(built.files[golden.artifact.sha256].absolute()),
    )
    field = f"variant {variant.profile}"
    _check_runtime(variant.runtime)
    child = _run("edgefleet.serving.prove", encode(request), field, timeout_s)
    lines = child.stdout.splitlines()
    if not lines:
        raise _ended(child, field)
    result = decode(lines[-1], ProveResult, code="model_unsupported")
    if not result.passed:
        code = "golden_failed" if result.reason == "golden_failed" else "model_unsupported"
        raise PublisherError(code, result.detail, field=field)
    return result


def answers(variant: Variant, model: Path, inputs: Path) -> dict[str, NDArray[Any]]:
    """The answers to the inputs of a golden set, as ``output.<name>``.

    Raises DeviceError ``runtime_missing``, or the errors of the model.
    """
    _check_runtime(variant.runtime)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.npz"
        request = AnswerRequest(
            variant=variant,
            artifact_path=str(model.absolute()),
            inputs_path=str(inputs.absolute()),
            answers_path=str(file),
        )
        child = _run("edgefleet.serving.answer", encode(request), "file", PROOF_TIMEOUT_S)
        last = child.stderr.strip().rpartition(b"\n")[2]
        if child.returncode == 1 and last.startswith(b"{"):
            raise error_from_problem(last)
        if child.returncode:
            raise _ended(child, "file")
        with np.load(file, allow_pickle=False) as read:
            return dict(read)


def runner() -> Runner:
    """Both, for ``new_release``."""
    return Runner(answers, prove)


def _check_runtime(runtime: str) -> None:
    """Raises DeviceError ``runtime_missing`` if the package of the runtime is not installed."""
    extra, module, name = _PACKAGES.get(runtime, ("", "", ""))
    if module and importlib.util.find_spec(module) is None:
        raise DeviceError(
            "runtime_missing",
            f"The proof needs {name}, which is not installed.",
            hint=f"Run `pip install 'edgefleet[{extra}]'`, or skip the proof with --skip-proof.",
        )


def _run(
    module: str, request: bytes, field: str, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [sys.executable, "-m", module],
            input=request,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PublisherError(
            "golden_failed", f"The golden set took longer than {timeout_s:.0f} s.", field=field
        ) from error


def _ended(child: subprocess.CompletedProcess[bytes], field: str) -> PublisherError:
    errors = child.stderr.decode(errors="replace").strip().splitlines()
    last = f": {errors[-1]}" if errors else ""
    return PublisherError(
        "model_unsupported",
        f"The process that runs the model exited with code {child.returncode}{last}.",
        field=field,
    )
