"""The publisher's own proof: each variant on the golden set, in a process of its own."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Golden, Variant
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode

PROOF_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the golden set lies, and how long a variant may take on it."""

    golden: Golden
    golden_path: Path
    timeout_s: float = PROOF_TIMEOUT_S

    def prove(self, variant: Variant, artifact: Path) -> ProveResult:
        """Run the golden set on a variant, as a device would.

        A model that crashes the runtime takes only the child process with it. Raises DeviceError
        ``runtime_missing``, PublisherError ``golden_failed`` or ``model_unsupported``.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise DeviceError(
                "runtime_missing",
                "The proof needs ONNX Runtime, which is not installed.",
                hint="pip install 'edgefleet[serving]', or leave the proof out: --skip-proof.",
            )
        request = ProveRequest(
            variant=variant,
            golden=self.golden,
            artifact_path=str(artifact.absolute()),
            golden_path=str(self.golden_path.absolute()),
        )
        result = self._run(request)
        if not result.passed:
            code = "golden_failed" if result.reason == "golden_failed" else "model_unsupported"
            raise PublisherError(code, f"{result.detail}", field=f"variant {variant.profile}")
        return result

    def _run(self, request: ProveRequest) -> ProveResult:
        try:
            child = subprocess.run(
                [sys.executable, "-m", "edgefleet.serving.prove"],
                input=encode(request),
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ProveResult(
                passed=False,
                reason="golden_failed",
                detail=f"The golden set took longer than {self.timeout_s:.0f} s.",
            )
        lines = child.stdout.splitlines()
        if not lines:
            said = child.stderr.decode(errors="replace").strip().splitlines()
            last = f": {said[-1]}" if said else ""
            return ProveResult(
                passed=False,
                reason="load_failed",
                detail=f"The proof ended with {child.returncode}{last}.",
            )
        return decode(lines[-1], ProveResult, code="model_unsupported")
