"""The serving runtime, which `model publish` and the demo need."""

import subprocess
import sys
from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State

_PROBE: Final = "import httptools, numpy, onnxruntime, uvloop; print(onnxruntime.__version__)"
_TIMEOUT_S: Final = 60.0


def check(ground: Ground) -> Finding:
    del ground
    try:
        # In a child: a broken native library takes only that down.
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        said = (child.stdout or child.stderr).strip().splitlines()
        works = child.returncode == 0
    except subprocess.TimeoutExpired:
        said, works = ["it did not load in time"], False
    last = said[-1] if said else "it ended without a word"
    if works:
        return Finding(check="serving", state=State.OK, text=f"ONNX Runtime {last}.")
    return Finding(
        check="serving",
        state=State.LOOK,
        text=f"The serving runtime does not load: {last}.",
        fix="pip install 'edgefleet[serving]'",
    )
