"""The serving runtime, which `model publish` and the demo need."""

import subprocess
import sys
from typing import Final

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State

_PROBE: Final = "import httptools, numpy, onnxruntime, uvloop; print(onnxruntime.__version__)"
_TIMEOUT_S: Final = 60.0


def check(context: Context) -> Finding:
    del context
    try:
        # In a child process: a broken native library crashes only the child.
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        output = (child.stdout or child.stderr).strip().splitlines()
        works = child.returncode == 0
    except subprocess.TimeoutExpired:
        output, works = [f"no answer within {_TIMEOUT_S:g} s"], False
    last = output[-1] if output else "it exited without output"
    if works:
        return Finding(check="serving", state=State.OK, text=f"ONNX Runtime {last}.")
    return Finding(
        check="serving",
        state=State.WARNING,
        text=f"The serving runtime does not load: {last}.",
        fix="pip install 'edgefleet[serving]'",
    )
